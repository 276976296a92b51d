//! The environment of one test: a sandbox, a folder and a configuration.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use wxtokend_core::secret::Secret;

use super::wechat::appid;
use super::{Daemon, WeChat};

/// Everything that a daemon needs and that outlives it.
pub(crate) struct Lab {
    pub(crate) wechat: WeChat,
    /// accounts.yaml as JSON, which is valid YAML.
    pub(crate) config: Value,
    pub(crate) folder: TempDir,
}

/// The result of a command.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Lab {
    /// A lab without accounts. Tokens live for `lifetime_ms`, with an overlap of `overlap_ms`.
    pub(crate) async fn new(lifetime_ms: u64, overlap_ms: u64) -> Self {
        let ms = Duration::from_millis;
        let wechat = WeChat::start(ms(lifetime_ms), ms(overlap_ms)).await;
        let config = json!({
            "api": { "listen": "127.0.0.1:0" },
            "store": { "path": "store.redb" },
            "upstream": {
                "base_urls": [format!("http://{}", wechat.address)],
                "timeout": "3s",
                "overlap": format!("{overlap_ms}ms"),
            },
            "defaults": { "retry": { "initial": "200ms", "max": "1s" }, "rejection_cooldown": "1s" },
            "accounts": [],
        });
        Self { wechat, config, folder: tempfile::tempdir().unwrap() }
    }

    /// Adds an account that WeChat knows.
    pub(crate) fn with(mut self, name: &str, settings: Value) -> Self {
        self.add(name, settings);
        self
    }

    /// Adds one account on each endpoint: `stable` and `classic`.
    pub(crate) fn with_both(self) -> Self {
        self.with("stable", json!({})).with("classic", json!({ "endpoint": "token" }))
    }

    /// Adds an account to the configuration and to WeChat.
    pub(crate) fn add(&mut self, name: &str, settings: Value) {
        self.wechat.add_account(&appid(name), Secret::new(secret_of(name)));
        let mut account = json!({ "appid": name, "secret": secret_of(name) });
        let Value::Object(settings) = settings else { panic!("settings are a mapping: {settings}") };
        account.as_object_mut().unwrap().extend(settings);
        self.config["accounts"].as_array_mut().unwrap().push(account);
    }

    /// The entry of an account in the configuration.
    pub(crate) fn account(&mut self, name: &str) -> &mut Value {
        let accounts = self.config["accounts"].as_array_mut().unwrap();
        accounts.iter_mut().find(|account| account["appid"] == name).unwrap()
    }

    /// A path in the lab's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the configuration to the daemon's file.
    pub(crate) fn write(&self) {
        std::fs::write(self.path("accounts.yaml"), serde_json::to_vec_pretty(&self.config).unwrap()).unwrap();
    }

    /// The program with `args`, in the lab's folder and without environment variables that it reads.
    pub(crate) fn program(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wxtokend"));
        command.args(args);
        self.prepared(command)
    }

    /// Prepares `command` as a child that is killed together with the test.
    pub(crate) fn prepared(&self, mut command: Command) -> Command {
        for name in ["RUST_LOG", "WXTOKEND_SERVER", "WXTOKEND_KEY", "NO_COLOR"] {
            command.env_remove(name);
        }
        command.current_dir(self.folder.path()).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs the program to its end.
    pub(crate) async fn run(&self, args: &[&str]) -> Ended {
        ended(self.program(args)).await
    }

    /// Writes the configuration and starts a daemon with it.
    pub(crate) async fn start(&self) -> Daemon {
        self.start_with(&[]).await
    }

    /// Starts a daemon whose open descriptors other processes may count.
    pub(crate) async fn start_observed(&self) -> Daemon {
        self.start_with(&["--core-dumps"]).await
    }

    /// Starts a daemon with more arguments.
    pub(crate) async fn start_with(&self, more: &[&str]) -> Daemon {
        self.write();
        Daemon::start(self.program(&[&["run", "--log-format", "json"], more].concat())).await
    }
}

/// Runs `command` to its end.
pub(crate) async fn ended(mut command: Command) -> Ended {
    let output = tokio::time::timeout(super::TIMEOUT, command.output());
    let output = output.await.expect("the command never ended").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// The AppSecret of an account, in a form that can be searched for.
pub(crate) fn secret_of(name: &str) -> String {
    format!("appsecret-of-{name}-5ecre7")
}
