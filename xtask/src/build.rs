//! Builds programs of a source tree with cargo, and finds them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::run::Outcome;

/// A source tree, and the folder of its builds.
pub(crate) struct Tree {
    pub(crate) path: PathBuf,
    pub(crate) target: PathBuf,
}

impl Tree {
    /// Builds what `args` name as `scripts/simulate` does, but with our own code unoptimised. Most runs are
    /// over in seconds, and optimising would add that much to the build. Returns the programs, with the
    /// target of each.
    pub(crate) fn build(&self, args: &[&str]) -> Outcome<Vec<(String, PathBuf)>> {
        let flags = std::env::var("RUSTFLAGS").unwrap_or_default() + " --cfg tokio_unstable";
        let mut command = Command::new("cargo");
        command.args(args).args(["--locked", "--profile", "simulation"]).current_dir(&self.path);
        for package in ["wxtokend", "wxtokend-core", "wxtokend-sandbox", "simulation"] {
            command.args(["--config", &format!("profile.simulation.package.{package}.opt-level=0")]);
        }
        command.args(["--message-format", "json-render-diagnostics"]);
        command.env("RUSTFLAGS", flags).env("CARGO_TARGET_DIR", &self.target).stderr(Stdio::piped());
        let output = command.output()?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("it does not compile\n{stderr}").into());
        }
        let messages = String::from_utf8(output.stdout)?;
        let programs = messages.lines().filter_map(|line| {
            let message: Value = serde_json::from_str(line).ok()?;
            let program = Path::new(message["executable"].as_str()?).to_owned();
            Some((message["target"]["name"].as_str()?.to_owned(), program))
        });
        Ok(programs.collect())
    }
}
