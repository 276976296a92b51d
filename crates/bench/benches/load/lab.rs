//! Runs a daemon, the simulated WeChat and others as processes on cores of their own.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use crate::Outcome;
use crate::client::call;
use crate::machine::Vitals;

/// Core of the server under test, alone.
pub(crate) const SERVER: Cores = Cores("0");
/// Core of the clients and WeChat.
pub(crate) const CLIENTS: Cores = Cores("1");
/// For measurements without throughput load.
pub(crate) const ANY: Cores = Cores("0,1");
/// The client key that the daemon knows.
pub(crate) const KEY: &str = "a-key-of-the-benchmarks-that-is-long-enough";
/// Time limit for every wait, long enough for a cold start of a hundred thousand accounts.
const TIMEOUT: Duration = Duration::from_secs(300);

/// A list of cores, as `taskset -c` takes it.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Cores(pub(crate) &'static str);

/// Restricts this thread, and those that it starts from now on, to `cores`.
pub(crate) fn pin_to(cores: Cores) -> Outcome<()> {
    let mut set = rustix::thread::CpuSet::new();
    for core in cores.0.split(',') {
        set.set(core.parse()?);
    }
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// Parameters of a fleet.
pub(crate) struct Plan {
    pub(crate) accounts: usize,
    pub(crate) endpoint: &'static str,
    pub(crate) lifetime: &'static str,
    pub(crate) overlap: &'static str,
    pub(crate) max_in_flight: u32,
    pub(crate) max_per_second: u32,
}

impl Plan {
    /// WeChat's own times, and as many calls as the upstream takes.
    pub(crate) fn of(accounts: usize) -> Self {
        Self {
            accounts,
            endpoint: "stable_token",
            lifetime: "7200s",
            overlap: "300s",
            max_in_flight: 64,
            max_per_second: 1_000_000,
        }
    }
}

/// A process that is killed on drop.
pub(crate) struct Program {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Program {
    pub(crate) fn of(child: Child, address: SocketAddr) -> Self {
        Self { child, address }
    }

    pub(crate) fn vitals(&self) -> Outcome<Vitals> {
        Vitals::of(self.child.id())
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn stop(mut self) -> Outcome<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?).ok_or("no process")?;
        kill_process(pid, Signal::TERM)?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder with a configuration, and the simulated WeChat that it names.
pub(crate) struct Lab {
    pub(crate) folder: TempDir,
    pub(crate) wechat: Program,
}

pub(crate) fn appid(number: usize) -> String {
    format!("wx{number:016x}")
}

impl Lab {
    pub(crate) async fn new(plan: &Plan) -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        let config = folder.path().join("accounts.yaml");
        write_config(&config, plan, "http://127.0.0.1:1")?;
        let mut command = on(CLIENTS, &program());
        command.args(["--log-format", "json", "sandbox", "--listen", "127.0.0.1:0", "--config"]).arg(&config);
        command.args(["--token-lifetime", plan.lifetime, "--overlap", plan.overlap]);
        let wechat = started(command, folder.path(), "wechat.log", "sandbox").await?;
        write_config(&config, plan, &format!("http://{}", wechat.address))?;
        Ok(Self { folder, wechat })
    }

    /// Has the daemon call another WeChat than the simulated one.
    pub(crate) fn call_instead(&self, plan: &Plan, upstream: SocketAddr) -> Outcome<()> {
        write_config(&self.folder.path().join("accounts.yaml"), plan, &format!("http://{upstream}"))
    }

    /// Starts the daemon; returns once it is listening.
    pub(crate) async fn daemon(&self, cores: Cores) -> Outcome<Program> {
        self.daemon_of(cores, &program(), None).await
    }

    /// Starts another program as the daemon, optionally with a library that replaces the system's allocator.
    pub(crate) async fn daemon_of(
        &self,
        cores: Cores,
        program: &str,
        allocator: Option<&str>,
    ) -> Outcome<Program> {
        let mut command = on(cores, program);
        if let Some(allocator) = allocator {
            command.env("LD_PRELOAD", allocator);
        }
        command
            // Its descriptors are counted, which a user other than root may only do for a process that may
            // dump core.
            .args(["--log-format", "json", "--core-dumps", "run", "--config"])
            .arg(self.folder.path().join("accounts.yaml"));
        started(command, self.folder.path(), "daemon.log", "api").await
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.folder.path().join("store.redb")
    }

    /// Calls the simulated WeChat's control API.
    pub(crate) async fn control(&self, method: &str, path: &str, body: &str) -> Outcome<Vec<u8>> {
        let path = format!("/_sandbox{path}");
        match call(self.wechat.address, method, &path, "", body).await? {
            (200, answer) => Ok(answer),
            (status, answer) => Err(format!("{path}: {status} {}", String::from_utf8_lossy(&answer)).into()),
        }
    }
}

/// Returns once each account has a token or has finished its first try.
pub(crate) async fn until_ready(address: SocketAddr) -> Outcome<()> {
    let ready = async {
        while call(address, "GET", "/readyz", "", "").await?.0 != 200 {
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    };
    timeout(TIMEOUT, ready).await?
}

fn write_config(path: &Path, plan: &Plan, upstream: &str) -> Outcome<()> {
    let mut file = std::io::BufWriter::new(File::create(path)?);
    writeln!(
        file,
        "api:\n  listen: 127.0.0.1:0\n  clients:\n    - {{ name: crm, key: another-key-that-nobody-sends-here-00, accounts: [\"wx*\"] }}\n    \
         - {{ name: shop, key: a-third-key-that-nobody-sends-here-00, accounts: [\"tag:retail\"] }}\n    \
         - {{ name: bench, key: {KEY}, accounts: [\"wx*\"], allow: [read, refresh, admin, call] }}"
    )?;
    writeln!(file, "metrics:\n  listen: null\nstore:\n  path: store.redb\nupstream:")?;
    writeln!(file, "  base_urls: [{upstream}]\n  overlap: {}", plan.overlap)?;
    writeln!(file, "  max_in_flight: {}\n  max_per_second: {}", plan.max_in_flight, plan.max_per_second)?;
    writeln!(file, "defaults:\n  endpoint: {}\naccounts:", plan.endpoint)?;
    for number in 0..plan.accounts {
        let appid = appid(number);
        writeln!(
            file,
            "  - appid: {appid}\n    name: Shop {number}\n    secret: secret-{number:024x}\n    tags: [retail]"
        )?;
    }
    Ok(file.flush()?)
}

/// The release build of the program, whose path `scripts/bench` sets.
pub(crate) fn program() -> String {
    std::env::var("WXTOKEND_PROGRAM").unwrap_or_else(|_| "target/release/wxtokend".to_owned())
}

/// Builds a command that runs `program` on these cores only.
pub(crate) fn on(cores: Cores, program: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", cores.0, program]);
    for name in ["RUST_LOG", "WXTOKEND_SERVER", "WXTOKEND_KEY"] {
        command.env_remove(name);
    }
    command
}

/// Starts a program that logs its address under `key` in a line of JSON; returns once it has.
pub(crate) async fn started(mut command: Command, folder: &Path, log: &str, key: &str) -> Outcome<Program> {
    let log = folder.join(log);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?).spawn()?;
    let mut program = Program { child, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
    let key = format!("\"{key}\":\"");
    let start = Instant::now();
    loop {
        let text = fs::read_to_string(&log)?;
        let address = text.split_once(&key).and_then(|(_, rest)| rest.split_once('"'));
        if let Some((address, _)) = address {
            program.address = address.parse()?;
            return Ok(program);
        }
        if program.child.try_wait()?.is_some() || start.elapsed() > TIMEOUT {
            return Err(format!("{command:?} did not start: {text}").into());
        }
        sleep(Duration::from_millis(1)).await;
    }
}

/// Starts a Redis without persistence; returns once it answers.
pub(crate) async fn redis(cores: Cores) -> Outcome<Program> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut command = on(cores, "redis-server");
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let program = Program { child, address: SocketAddr::from(([127, 0, 0, 1], port)) };
    let up = async {
        while tokio::net::TcpStream::connect(program.address).await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(TIMEOUT, up).await?;
    Ok(program)
}
