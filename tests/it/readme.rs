//! Checks README.md against the program: its commands are run, its words compared.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::process::Command;
use wxtokend_core::secret::{Secret, hex};

use crate::harness::{Daemon, Lab, ended, until};
use crate::sdk_pages::links;

const README: &str = include_str!("../../README.md");
const CHINESE: &str = include_str!("../../README.zh-CN.md");
const EXAMPLE: &str = include_str!("../../accounts.example.yaml");
const PROBLEMS: &str = include_str!("../../src/daemon/http/problem.rs");

/// A fenced block, and the line at which it opens.
#[derive(Debug, PartialEq)]
pub(crate) struct Block<'a> {
    pub(crate) info: &'a str,
    pub(crate) text: String,
    pub(crate) opens: usize,
    pub(crate) closes: usize,
}

pub(crate) fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut blocks: Vec<Block<'_>> = Vec::new();
    let mut open: Option<Block<'_>> = None;
    for (index, line) in page.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(info), None) => open = Some(Block { info, text: String::new(), opens: index, closes: 0 }),
            (Some(_), Some(_)) => blocks.extend(open.take().map(|block| Block { closes: index, ..block })),
            (None, Some(block)) => block.text += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block does not end: {open:?}");
    blocks
}

/// A daemon started as the README says, on a port of its own. All accounts have been fresh for a second.
pub(crate) async fn sandboxed(lab: &Lab) -> (Daemon, String) {
    std::fs::write(lab.path("accounts.yaml"), EXAMPLE.replace("127.0.0.1:8787", "127.0.0.1:0")).unwrap();
    let daemon = Daemon::start(lab.program(&["run", "--sandbox", "--log-format", "json"])).await;
    let sandbox = daemon.event("started", 1).await["sandbox"].as_str().unwrap().to_owned();
    until("every token is a second old", async || {
        let scrape = daemon.get("/metrics").await.body;
        let ages = scrape.lines().filter(|line| line.starts_with("wxtokend_token_age_seconds{"));
        let old = ages.filter(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() > 1.0);
        old.count() == 6
    })
    .await;
    (daemon, sandbox)
}

#[tokio::test]
async fn the_commands_of_the_readme_answer_what_it_says() {
    let lab = Lab::new(60_000, 10_000).await;
    let (daemon, sandbox) = sandboxed(&lab).await;
    let blocks = blocks(README);
    let commands: Vec<_> = blocks.iter().filter(|block| block.info.starts_with("sh test")).collect();
    let listed = run_all(&lab, daemon.address().to_string(), &sandbox, &commands).await;
    assert_eq!(listed.len(), commands.len(), "a command ended the shell: {listed:?}");
    for (command, (said, code)) in commands.iter().zip(listed) {
        let place = format!("README.md:{}", command.opens + 1);
        let fails = command.info == "sh test fails";
        assert_eq!(code != "0", fails, "{place}: exit code {code}:\n{said}");
        assert!(!said.contains("\"error\"") && !said.contains("\"code\""), "{place}: refused:\n{said}");
        let Some(answer) = blocks.iter().find(|block| block.opens == command.closes + 1) else { continue };
        match answer.info {
            "json" => {
                let read = |text: &str| serde_json::from_str::<Value>(text);
                let said = read(&said).unwrap_or_else(|error| panic!("{place}: {error}:\n{said}"));
                assert_eq!(shape(&said), shape(&read(&answer.text).unwrap()), "{place}");
            }
            "text" => {
                assert!(fits(&answer.text, &said), "{place}: it says\n{}\nbut in truth\n{said}", answer.text)
            }
            // The next command.
            _ => {}
        }
    }
}

/// Runs the blocks one after another in one shell, as if pasted, and returns the output and exit code of
/// each.
pub(crate) async fn run_all(
    lab: &Lab,
    api: String,
    sandbox: &str,
    commands: &[&Block<'_>],
) -> Vec<(String, String)> {
    for tool in ["bash", "curl", "jq"] {
        let found = Command::new(tool).arg("--version").stdout(Stdio::null()).status().await;
        assert!(found.is_ok(), "the README's examples need {tool}: install it (sudo apt-get install {tool})");
    }
    let mut script = "exec 2>&1\n".to_owned();
    for Block { text, .. } in commands {
        let text = text.replace("127.0.0.1:8787", &api).replace("127.0.0.1:8788", sandbox);
        script += &format!("{text}printf '\\036%s\\036' $?\n");
    }
    let program = Path::new(env!("CARGO_BIN_EXE_wxtokend")).parent().unwrap();
    let path = std::env::join_paths(
        std::iter::once(program.to_owned()).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let mut bash = lab.prepared(Command::new("bash"));
    bash.arg("-c").arg(script).env("PATH", path.unwrap()).env("WXTOKEND_SERVER", api).env("no_proxy", "*");
    let all = ended(bash).await.stdout;
    let parts: Vec<_> = all.split('\u{1e}').map(str::to_owned).collect();
    parts.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}

/// The part of an answer that is the same each time. Numbers vary, and so do strings with digits and long
/// strings, which may happen to have no digit.
fn shape(value: &Value) -> Value {
    match value {
        Value::Number(_) => json!("a number"),
        Value::String(text) if text.contains(|c: char| c.is_ascii_digit()) || is_drawn(text) => {
            json!("a string")
        }
        Value::Array(all) => all.iter().map(shape).collect(),
        Value::Object(all) => {
            // One nonce in sixteen has no digit.
            let shape = |(key, value): (&String, &Value)| match key.as_str() {
                "nonceStr" => (key.clone(), json!("a string")),
                _ => (key.clone(), shape(value)),
            };
            Value::Object(all.iter().map(shape).collect())
        }
        same => same.clone(),
    }
}

/// Whether `text` can be sixteen random letters and digits.
fn is_drawn(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Whether `said` matches `expected`, line by line, except for numbers, blanks and what `…` stands for.
pub(crate) fn fits(expected: &str, said: &str) -> bool {
    let (expected, said) = (lines(expected), lines(said));
    expected.len() == said.len()
        && expected.iter().zip(&said).all(|(expected, said)| fits_line(expected, said))
}

fn lines(text: &str) -> Vec<String> {
    let plain = |line: &str| {
        let mut line: String = line.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        for pair in ["00", "  "] {
            while line.contains(pair) {
                line = line.replace(pair, &pair[1..]);
            }
        }
        line.trim_end().to_owned()
    };
    text.trim_end().lines().map(plain).collect()
}

fn fits_line(expected: &str, said: &str) -> bool {
    let mut parts = expected.split('…');
    let Some(mut rest) = said.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<_> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

#[test]
fn an_answer_fits_but_for_numbers_blanks_and_dots() {
    assert!(fits("a  12s  x…y…\n", "a 345s xzzyq\n"));
    for (expected, said) in [("a", "b"), ("a", "a\nb"), ("a…c", "ab"), ("a…", "b"), ("a", "ab")] {
        assert!(!fits(expected, said), "{expected} {said}");
    }
}

#[tokio::test]
async fn the_accounts_yaml_of_the_readme_is_right_and_gives_no_warning() {
    let lab = Lab::new(60_000, 10_000).await;
    let yaml = blocks(README).into_iter().find(|block| block.info == "yaml").unwrap().text;
    std::fs::write(lab.path("accounts.yaml"), &yaml).unwrap();
    let mut check = lab.program(&["check", "--strict"]);
    for named in yaml.split("${").skip(1) {
        let name = named.split_once('}').unwrap().0;
        // Each variable gets its own value, in the form of an AppSecret and long enough for a key.
        check.env(name, &hex(&Secret::new(name).sha256())[..32]);
    }
    let checked = ended(check).await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(checked.stdout.contains("accounts: 2") && checked.stdout.contains("name: crm"), "{checked:?}");
    assert!(
        checked.stdout.ends_with("accounts.yaml is valid: 2 accounts, 2 clients, 0 warnings\n"),
        "{checked:?}"
    );
    assert!(!checked.stdout.contains("nowhere"), "its metrics are served: {checked:?}");
}

#[test]
fn the_readme_is_short_and_names_every_code_of_a_refusal() {
    assert!(README.lines().count() < 250);
    let (_, codes) = PROBLEMS.split_once("fn as_str(self)").unwrap();
    let (codes, _) = codes.split_once("\n    }\n").unwrap();
    let codes: Vec<_> = codes.split('"').skip(1).step_by(2).collect();
    assert!(codes.len() >= 12, "{codes:?}");
    for code in codes {
        assert!(README.contains(&format!("`{code}`")), "{code}");
    }
}

/// The content of a README section that does not depend on its language. Empty before the first heading.
#[derive(Default)]
struct Section<'a> {
    heading: &'a str,
    blocks: Vec<Block<'a>>,
    /// The texts in backticks, in alphabetical order.
    words: BTreeSet<&'a str>,
    links: BTreeSet<&'a str>,
    /// The numbers in each row of its tables.
    rows: Vec<Vec<&'a str>>,
}

fn sections(page: &str) -> Vec<Section<'_>> {
    let mut sections = vec![Section::default()];
    let mut blocks = blocks(page).into_iter().peekable();
    for (index, line) in page.lines().enumerate() {
        let last = sections.len() - 1;
        if let Some(block) = blocks.peek().filter(|block| block.opens <= index) {
            if block.closes == index {
                let block = blocks.next().map(|block| Block { opens: 0, closes: 0, ..block });
                sections[last].blocks.extend(block);
            }
        } else if line.starts_with('#') {
            sections.push(Section { heading: line, ..Section::default() });
        } else {
            let section = &mut sections[last];
            section.words.extend(line.split('`').skip(1).step_by(2));
            // The two READMEs link to each other.
            section.links.extend(links(line).into_iter().filter(|link| !link.starts_with("README.")));
            if line.starts_with('|') {
                let numbers = line.split(|c: char| !c.is_ascii_digit()).filter(|number| !number.is_empty());
                section.rows.push(numbers.collect());
            }
        }
    }
    sections
}

#[test]
fn the_chinese_readme_says_what_the_english_says() {
    let (english, chinese) = (sections(README), sections(CHINESE));
    let level = |section: &Section<'_>| section.heading.find(' ').unwrap_or_default();
    let levels = |sections: &[Section<'_>]| sections.iter().map(level).collect::<Vec<_>>();
    let rule = "README.md (left) and README.zh-CN.md (right) differ: change the other as well";
    assert_eq!(levels(&english), levels(&chinese), "{rule}. The levels of their headings");
    for (english, chinese) in english.iter().zip(&chinese) {
        let rule = format!("{rule}, code blocks letter by letter. Under {:?}", english.heading);
        for (english, chinese) in english.blocks.iter().zip(&chinese.blocks) {
            assert_eq!(english, chinese, "{rule}: a code block");
        }
        assert_eq!(english.blocks.len(), chinese.blocks.len(), "{rule}: the number of code blocks");
        let alone: Vec<_> = english.words.symmetric_difference(&chinese.words).collect();
        assert!(alone.is_empty(), "{rule}: one alone has in backticks {alone:?}");
        assert_eq!(english.links, chinese.links, "{rule}: links");
        assert_eq!(english.rows, chinese.rows, "{rule}: the numbers in the rows of a table");
    }
    for (page, other) in [(README, "README.zh-CN.md"), (CHINESE, "README.md")] {
        let top: String = page.lines().take(4).collect();
        assert!(top.contains(&format!("]({other})")), "its first lines have no link to {other}: {top}");
    }
}
