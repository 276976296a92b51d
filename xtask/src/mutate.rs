//! Mutation testing: each patch in `mutations/` breaks the program, which the simulation or a test must
//! notice.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Args;

use crate::build::Tree;
use crate::run::{Outcome, Run, first_to_notice};

/// Applies each of `mutations/*.patch`, or those that are named, to a copy of the project. Runs the tests of
/// the core and of the sandbox if the patch touches them, then the simulation and the library's tests in
/// parallel, until something notices. A patch whose header says "Noticed by tests/it: `MODULE::TEST_NAME`" is
/// judged by that test of the real program alone. Fails if something goes unnoticed.
#[derive(Args)]
pub(crate) struct Mutate {
    /// Names of patches, without `.patch`
    names: Vec<String>,
    /// How many simulated fleets each may take
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// Time limit in seconds; a run beyond it hangs, which counts as noticed
    #[arg(long, default_value_t = 300)]
    time_limit_s: u64,
}

/// A change that breaks something.
struct Patch {
    name: String,
    path: PathBuf,
    /// The test of `tests/it` that must notice it.
    test: Option<String>,
    /// The packages that it touches, other than the root's.
    packages: BTreeSet<&'static str>,
}

/// Packages whose tests take seconds.
const QUICK: [(&str, &str); 2] = [("crates/core/", "wxtokend-core"), ("crates/sandbox/", "wxtokend-sandbox")];

impl Mutate {
    pub(crate) fn run(&self, root: &Path) -> Outcome<()> {
        let patches = self.patches(root)?;
        let work = root.join("target/mutate");
        fs::create_dir_all(&work)?;
        let tree = Tree { path: work.join("tree"), target: work.join("build") };
        if self.names.is_empty() {
            // A check that fails even without a patch would notice everything.
            copy(root, &tree.path)?;
            let named: BTreeSet<_> = patches.iter().filter_map(|patch| patch.test.clone()).collect();
            for test in named.into_iter().map(Some).chain([None]) {
                let all = QUICK.iter().map(|(_, package)| *package).collect();
                let untouched = Patch { name: String::new(), path: PathBuf::new(), test, packages: all };
                if let Some(noticed) = self.judge(&tree, &work, &untouched)? {
                    return Err(format!("the project is not well as it is: {noticed}").into());
                }
            }
        }
        println!("{:44}  seconds  noticed by", "mutation");
        let mut unnoticed = 0;
        for patch in &patches {
            copy(root, &tree.path)?;
            apply(patch, &tree.path)?;
            let started = Instant::now();
            let noticed = match self.judge(&tree, &work, patch) {
                Ok(Some(noticed)) => noticed,
                Ok(None) => "NOTHING".to_owned(),
                Err(error) => format!("NOTHING: {error}"),
            };
            unnoticed += usize::from(noticed.starts_with("NOTHING"));
            println!("{:44}  {:7}  {noticed}", patch.name, started.elapsed().as_secs());
        }
        if unnoticed > 0 {
            return Err(format!("{unnoticed} of {} went unnoticed", patches.len()).into());
        }
        Ok(())
    }

    fn patches(&self, root: &Path) -> Outcome<Vec<Patch>> {
        let folder = root.join("mutations");
        let mut paths: Vec<PathBuf> = match self.names.as_slice() {
            [] => fs::read_dir(&folder)?.map(|file| Ok(file?.path())).collect::<Outcome<_>>()?,
            names => names.iter().map(|name| folder.join(name).with_extension("patch")).collect(),
        };
        paths.sort();
        let mut patches = paths.into_iter().map(Patch::read).collect::<Outcome<Vec<_>>>()?;
        // Sorted by package: code that two consecutive patches leave alone is not rebuilt between them.
        patches.sort_by(|a, b| a.packages.cmp(&b.packages));
        Ok(patches)
    }

    /// Returns what notices the tree as it is; `None` if nothing does.
    fn judge(&self, tree: &Tree, work: &Path, patch: &Patch) -> Outcome<Option<String>> {
        let limit = Duration::from_secs(self.time_limit_s);
        if let Some(test) = &patch.test {
            let programs = tree.build(&["test", "--no-run", "-p", "wxtokend", "--test", "it"])?;
            let it = program(&programs, "it")?;
            let listed = Command::new(it).args(["--list", "--exact", test]).output()?;
            if !String::from_utf8_lossy(&listed.stdout).contains(": test") {
                // With a name that matches no test, the run would pass as well.
                return Err(format!("there is no test {test} in tests/it").into());
            }
            let log = work.join("it.log");
            let mut command = Command::new(it);
            command.args(["--exact", test]).current_dir(&tree.path);
            return first_to_notice(vec![Run::start(&mut command, &log, limit, failed_test)?]);
        }
        for package in &patch.packages {
            let programs = tree.build(&["test", "--no-run", "--lib", "-p", package])?;
            let log = work.join("quick.log");
            let mut tests = Command::new(program(&programs, &package.replace('-', "_"))?);
            tests.current_dir(&tree.path);
            let noticed = first_to_notice(vec![Run::start(&mut tests, &log, limit, failed_test)?])?;
            if noticed.is_some() {
                return Ok(noticed);
            }
        }
        let simulation = tree.build(&["build", "-p", "simulation"])?;
        let library = tree.build(&["test", "--no-run", "--lib", "-p", "wxtokend"])?;
        let logs = [work.join("simulation.log"), work.join("library.log")];
        let mut months = Command::new(program(&simulation, "simulation")?);
        months.args(["months", "--first-only", "--trace-lines", "1", "--seeds", &self.seeds.to_string()]);
        let mut tests = Command::new(program(&library, "wxtokend")?);
        tests.current_dir(&tree.path);
        first_to_notice(vec![
            Run::start(&mut months, &logs[0], limit, violation)?,
            Run::start(&mut tests, &logs[1], limit, failed_test)?,
        ])
    }
}

impl Patch {
    fn read(path: PathBuf) -> Outcome<Self> {
        let text = fs::read_to_string(&path).map_err(|error| format!("read {}: {error}", path.display()))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let head = text.lines().take_while(|line| !line.starts_with("--- "));
        let test = head.filter_map(|line| line.strip_prefix("Noticed by tests/it:")).last();
        let test = test.map(|test| test.trim().to_owned());
        let touched = |folder: &str| text.lines().any(|line| line.starts_with(&format!("--- a/{folder}")));
        let packages = QUICK.iter().filter(|(folder, _)| touched(folder)).map(|(_, package)| *package);
        Ok(Self { packages: packages.collect(), name, path, test })
    }
}

/// Makes `tree` a copy of the project's files. Files that are already the same are not rewritten: cargo goes
/// by modification times, and would rebuild every crate.
fn copy(root: &Path, tree: &Path) -> Outcome<()> {
    fs::create_dir_all(tree)?;
    let kept = files(root, &["-zco", "--exclude-standard"])?;
    // Files that a patch added, or that have left the project since.
    for stray in files(tree, &["-zo"])?.difference(&kept) {
        fs::remove_file(tree.join(stray))?;
    }
    for file in &kept {
        let (from, to) = (root.join(file), tree.join(file));
        if fs::read(&to).ok() != Some(fs::read(&from)?) {
            fs::create_dir_all(to.parent().unwrap_or(tree))?;
            fs::copy(from, to)?;
        }
    }
    Ok(())
}

/// Returns the files that git lists below a folder.
fn files(folder: &Path, listing: &[&str]) -> Outcome<BTreeSet<String>> {
    let listed = Command::new("git").arg("ls-files").args(listing).current_dir(folder).output()?;
    let listed = String::from_utf8(listed.stdout)?;
    Ok(listed.split('\0').filter(|file| folder.join(file).is_file()).map(str::to_owned).collect())
}

fn apply(patch: &Patch, tree: &Path) -> Outcome<()> {
    // `git apply` looks above the tree, where it would find the repository and skip what that ignores.
    let ceiling = tree.parent().unwrap_or(tree);
    let mut command = Command::new("git");
    command.arg("apply").arg(&patch.path).current_dir(tree).env("GIT_CEILING_DIRECTORIES", ceiling);
    if !command.status()?.success() {
        return Err(format!("{} does not apply any more: make it again", patch.path.display()).into());
    }
    Ok(())
}

fn program<'a>(programs: &'a [(String, PathBuf)], name: &str) -> Outcome<&'a Path> {
    let found = programs.iter().find(|(target, _)| target == name);
    Ok(found.ok_or_else(|| format!("there is no program {name}"))?.1.as_path())
}

/// `test a::b ... FAILED`
fn failed_test(line: &str) -> Option<String> {
    let name = line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?;
    Some(format!("test: {name}"))
}

/// `seed 3, wx07 after …: what`
fn violation(line: &str) -> Option<String> {
    line.starts_with("seed ").then(|| format!("simulation: {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_noticed_is_found_in_what_is_printed() {
        assert_eq!(failed_test("test a::b ... FAILED").as_deref(), Some("test: a::b"));
        assert_eq!(failed_test("test a::b ... ok"), None);
        assert_eq!(
            violation("seed 3, wx07 after 2 s: I1").as_deref(),
            Some("simulation: seed 3, wx07 after 2 s: I1")
        );
        assert_eq!(violation("  seeds  20"), None);
    }
}
