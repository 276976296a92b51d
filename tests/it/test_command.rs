//! Tests of what `scripts/test` installs, with stand-ins for everything that it calls.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use tempfile::TempDir;
use tokio::process::Command;

use crate::harness::{Ended, ended};

/// The commands of a machine that has everything except Rust.
const TOOLS: [&str; 14] = [
    "cc",
    "curl",
    "jq",
    "chromium",
    "chromedriver",
    "prometheus",
    "promtool",
    "npm",
    "python3",
    "nginx",
    "redis-server",
    "redis-cli",
    "ip",
    "apt-get",
];

/// A machine on which each command records how it was called.
struct Machine(TempDir);

impl Machine {
    fn new(user: u32) -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        fs::create_dir(machine.bin()).unwrap();
        for name in ["bash", "sh", "env", "dirname", "cut", "sort", "head", "mkdir", "cp"] {
            let found = std::env::split_paths(&std::env::var_os("PATH").unwrap())
                .map(|folder| folder.join(name))
                .find(|path| path.exists());
            symlink(found.unwrap(), machine.bin().join(name)).unwrap();
        }
        machine.command("id", &format!("echo {user}"));
        for tool in TOOLS {
            machine.command(tool, &format!("echo {tool} \"$@\" >>$CALLS"));
        }
        machine
    }

    fn with_rust(self, version: &str) -> Self {
        self.command("rustc", &format!("echo 'rustc {version} (0)'"));
        // Ends the script after the set-up.
        self.command("cargo", "case $* in *--version) ;; *) echo cargo \"$@\" >>$CALLS; exit 9 ;; esac");
        self
    }

    fn without(self, tools: &[&str]) -> Self {
        tools.iter().for_each(|tool| fs::remove_file(self.bin().join(tool)).unwrap());
        self
    }

    fn bin(&self) -> std::path::PathBuf {
        self.0.path().join("bin")
    }

    fn command(&self, name: &str, text: &str) {
        let path = self.bin().join(name);
        fs::write(&path, format!("#!/usr/bin/env bash\n{text}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Runs the script; returns how it ended, and what it called.
    async fn run(&self) -> (Ended, String) {
        self.run_tiers(&[]).await
    }

    async fn run_tiers(&self, tiers: &[&str]) -> (Ended, String) {
        let calls = self.0.path().join("calls");
        fs::write(&calls, "").unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/test");
        let mut command = Command::new(self.bin().join("bash"));
        command.arg(script).args(tiers).env_clear().env("PATH", self.bin()).env("CALLS", &calls);
        command.env("HOME", self.0.path()).env("BIN", self.bin()).kill_on_drop(true);
        let ended = ended(command).await;
        (ended, fs::read_to_string(calls).unwrap())
    }
}

const INSTALLS: &str = "apt-get install -y -q --no-install-recommends jq redis-server";

#[tokio::test]
async fn root_gets_what_is_missing_and_the_tests_begin() {
    let machine = Machine::new(0).with_rust("1.95.0").without(&["jq", "redis-cli"]);
    let (ended, calls) = machine.run().await;
    assert!(ended.stdout.contains("== installing jq redis-server\n"), "{ended:?}");
    assert_eq!(ended.code, Some(9), "{ended:?}");
    let calls: Vec<_> = calls.lines().filter(|call| !call.starts_with("python3")).collect();
    assert_eq!(calls, ["apt-get update -q", INSTALLS, "cargo fmt --all --check"]);

    let (ended, calls) = Machine::new(0).with_rust("1.96.1").run().await;
    assert_eq!((ended.code, calls.contains("apt-get")), (Some(9), false), "nothing is missing: {ended:?}");
}

#[tokio::test]
async fn the_first_tier_needs_no_system_package_and_there_are_three() {
    let machine =
        Machine::new(1_000).with_rust("1.95.0").without(&["jq", "redis-server", "chromium", "nginx"]);
    let (ended, calls) = machine.run_tiers(&["1"]).await;
    assert_eq!((ended.code, calls.as_str()), (Some(9), "cargo fmt --all --check\n"), "{ended:?}");
    let (ended, calls) = machine.run_tiers(&["1", "4"]).await;
    assert_eq!((ended.code, calls.as_str()), (Some(1), ""), "{ended:?}");
    assert!(ended.stderr.contains("there is no tier 4"), "{ended:?}");
}

#[tokio::test]
async fn other_users_install_by_sudo_without_a_password_or_are_shown_the_command() {
    let machine = Machine::new(1_000).with_rust("1.95.0").without(&["jq", "redis-server"]);
    machine.command(
        "sudo",
        "[[ $1 == -n ]] || exit 1; shift; [[ $1 == true ]] || { echo by sudo >>$CALLS; \"$@\"; }",
    );
    let (ended, calls) = machine.run().await;
    assert_eq!(ended.code, Some(9), "{ended:?}");
    assert!(calls.contains(&format!("by sudo\napt-get update -q\nby sudo\n{INSTALLS}\n")), "{calls}");

    let line = "scripts/test: missing: jq redis-server. Install with: sudo apt-get update && sudo apt-get install \
                -y --no-install-recommends jq redis-server\n";
    machine.command("sudo", "echo sudo: a password is required >&2; exit 1");
    for machine in [machine, Machine::new(1_000).with_rust("1.95.0").without(&["jq", "redis-server"])] {
        let (ended, calls) = machine.run().await;
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(1), line), "{ended:?}");
        assert!(!calls.contains("apt-get") && !calls.contains("cargo"), "{calls}");
    }
    let (ended, _) = Machine::new(0).with_rust("1.95.0").without(&["jq", "apt-get"]).run().await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("missing: jq, and there is no apt-get"), "{ended:?}");
}

#[tokio::test]
async fn rust_is_installed_where_there_is_none_or_an_old_one() {
    let installer = |machine: &Machine| {
        machine.command("new-rustc", "echo 'rustc 1.97.0 (0)'");
        machine.command("new-cargo", "[[ $* == *--version ]] || { echo new cargo \"$@\" >>$CALLS; exit 9; }");
        machine.command(
            "curl",
            "echo 'mkdir -p $HOME/.cargo/bin; for n in rustc cargo; do cp $BIN/new-$n $HOME/.cargo/bin/$n; done'",
        );
    };
    for machine in [Machine::new(1_000), Machine::new(1_000).with_rust("1.63.0")] {
        installer(&machine);
        let (ended, calls) = machine.run().await;
        assert!(ended.stdout.contains("== installing Rust 1.95 or newer\n"), "{ended:?}");
        assert_eq!(ended.code, Some(9), "{ended:?}");
        assert!(calls.ends_with("new cargo fmt --all --check\n"), "{calls}");
    }
    let machine = Machine::new(1_000).with_rust("1.63.0");
    machine.command("rustup", "echo rustup \"$@\" >>$CALLS");
    let (ended, calls) = machine.run().await;
    assert!(calls.contains("rustup update stable"), "{calls}");
    assert!(ended.code == Some(1) && ended.stderr.contains("no Rust 1.95 or newer even so"), "{ended:?}");
}
