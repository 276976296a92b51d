//! A real network link to WeChat that can be cut: two network namespaces of the kernel, joined by a switch.

use std::fs::File;
use std::io::Write as _;
use std::net::TcpListener as StdListener;
use std::os::fd::AsFd as _;
use std::panic::resume_unwind;
use std::process::Stdio;
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::runtime::Builder;

use super::{said, tool, until, words};

/// Set-up of our end. Addresses of 127.9.0.0/24 lead to WeChat, since `http://` is allowed for loopback
/// addresses only.
const NEAR: &str = "
    ip link set lo up
    ip addr del 127.0.0.1/8 dev lo
    ip addr add 127.0.0.1/32 dev lo
    ip link add wire type veth peer name near netns $OTHER
    echo 1 >/proc/sys/net/ipv4/conf/wire/route_localnet
    ip addr add 127.9.0.1/24 dev wire
    ip link set wire up";

/// Set-up of WeChat's end, behind a switch. Neither end notices packets that a switch drops, while a direct
/// wire would report its state.
const FAR: &str = "
    ip link add switch type bridge
    ip link add wire type veth peer name far
    ip link set near master switch
    ip link set far master switch
    echo 1 >/proc/sys/net/ipv4/conf/wire/route_localnet
    ip addr add 127.9.0.2/24 dev wire
    for device in switch near far wire; do ip link set $device up; done";

/// Size in bytes up to which the switch still forwards packets when it drops longer ones.
const SMALL_BYTES: u32 = 600;
/// Makes the switch drop everything.
const DROP_ALL: &str = "ip link set far type bridge_slave state 0";
const FORWARD_ALL: &str = "
    ip link set far mtu 1500
    ip link set far type bridge_slave state 3";

/// The link, as seen from our end. Removed when it is dropped.
pub(crate) struct Link {
    near: Namespace,
    far: Namespace,
}

/// A network namespace, kept by a process that ends with this one, however that happens.
struct Namespace {
    holder: Child,
}

impl Link {
    /// Runs `test`, and all processes that it starts, at our end of a link. If this machine forbids
    /// namespaces, the test is skipped with a message on stderr, which bypasses the capture of passing tests.
    pub(crate) fn test(test: impl AsyncFnOnce(Self) + Send + 'static) {
        // On a thread of its own, since it never leaves the namespace.
        let run = move || {
            Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                match Self::new().await {
                    Ok(link) => test(link).await,
                    Err(why) => report_skipped(&why),
                }
            });
        };
        let name = thread::current().name().map(str::to_owned).unwrap_or_default();
        let ended = thread::Builder::new().name(name).spawn(run).unwrap().join();
        ended.unwrap_or_else(|panic| resume_unwind(panic));
    }

    async fn new() -> Result<Self, String> {
        for (program, package) in [("ip", "iproute2"), ("nsenter", "util-linux")] {
            tool(program, package).await;
        }
        let (near, far) = (Namespace::new().await?, Namespace::new().await?);
        near.run(NEAR, &far).await?;
        far.run(FAR, &near).await?;
        near.enter()?;
        Ok(Self { near, far })
    }

    /// A listening socket at WeChat's end.
    pub(crate) fn listen(&self) -> TcpListener {
        self.far.enter().unwrap();
        let listener = StdListener::bind("127.9.0.2:0").unwrap();
        self.near.enter().unwrap();
        listener.set_nonblocking(true).unwrap();
        TcpListener::from_std(listener).unwrap()
    }

    /// Lets connections to WeChat open and checks pass, but no long call.
    pub(crate) async fn forward_small_packets_only(&self) {
        self.set(&format!("ip link set far mtu {SMALL_BYTES}")).await;
    }

    /// Cuts the link once `calls` to WeChat are in flight that have not got through.
    pub(crate) async fn cut_under(&self, calls: usize) {
        until("calls are under way", async || self.under_way() >= calls).await;
        self.set(DROP_ALL).await;
    }

    /// Restores the link.
    pub(crate) async fn restore(&self) {
        self.set(FORWARD_ALL).await;
    }

    async fn set(&self, script: &str) {
        self.far.run(script, &self.near).await.unwrap();
    }

    /// The number of in-flight calls to WeChat that are too long to get through. Checks may be in flight as
    /// well.
    fn under_way(&self) -> usize {
        // The file of this thread: /proc/net is that of the main thread.
        let sockets = std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
        let is_stuck = |socket: Vec<&str>| {
            let (to, queues) = (socket[2], socket[4]);
            let unsent = queues.split(':').next().map(|bytes| u32::from_str_radix(bytes, 16));
            to.starts_with("0200097F:")
                && unsent.is_some_and(|bytes| bytes.is_ok_and(|bytes| bytes > SMALL_BYTES))
        };
        sockets.lines().filter(|line| is_stuck(line.split_whitespace().collect())).count()
    }
}

impl Namespace {
    async fn new() -> Result<Self, String> {
        let mut command = tool("unshare", "util-linux").await;
        command.args(["--net", "cat"]).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut holder = command.spawn().map_err(|error| format!("unshare: {error}"))?;
        // The namespace exists once its `cat` answers.
        let _ = holder.stdin.as_mut().unwrap().write_all(b"\n").await;
        let mut echo = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut echo).await.unwrap();
        if echo.is_empty() {
            let mut message = String::new();
            holder.stderr.take().unwrap().read_to_string(&mut message).await.unwrap();
            return Err(format!("unshare --net: {}", message.trim()));
        }
        Ok(Self { holder })
    }

    fn pid(&self) -> u32 {
        self.holder.id().expect("it runs until it is dropped")
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.pid())
    }

    /// Runs a script inside the namespace. The script may refer to the process of the other end.
    async fn run(&self, script: &str, other: &Self) -> Result<(), String> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).args(["sh", "-exc", script]);
        command.env("OTHER", other.pid().to_string());
        let ended = said(command).await;
        if ended.status.success() { Ok(()) } else { Err(words(&ended)) }
    }

    /// Moves this thread into the namespace.
    fn enter(&self) -> Result<(), String> {
        let namespace = File::open(self.path()).map_err(|error| format!("{}: {error}", self.path()))?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|error| format!("setns: {error}"))
    }
}

/// Reports a skipped test past the capture of passing tests.
fn report_skipped(why: &str) {
    let name = thread::current().name().unwrap_or("a test").to_owned();
    let message = format!(
        "\nNOT RUN: {name}: it needs network namespaces with veth and a bridge, and this user or machine may not make \
         them. Run it as root, in a container with --privileged, on a Linux that has the modules veth and bridge.\n{}\n",
        why.trim()
    );
    std::io::stderr().write_all(message.as_bytes()).unwrap();
}
