//! Measures calls that are passed on, next to nginx's `proxy_pass`, and what they add to a call's time.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::time::{Duration, sleep, timeout};

use crate::client::{self, CONNECTIONS, Cost, Load, Protocol, at_rate};
use crate::lab::{self, CLIENTS, KEY, Lab, Plan, Program, SERVER, appid, on, until_ready};
use crate::{Options, Outcome, median};

const ROUNDS: usize = 5;
const ACCOUNTS: usize = 100;
/// Length of the answers.
const BODY: usize = 500;
const CALL: &str = "cgi-bin/user/info?openid=oLVPpjqs9BhvzwPj5A-vTYAX3GLc&lang=zh_CN";

struct Servers {
    _lab: Lab,
    daemon: Program,
    nginx: Program,
    upstream: Program,
}

pub(crate) fn measure(options: &Options) -> Outcome<Value> {
    client::runtime()?.block_on(async {
        let servers = Servers::start().await?;
        let time = options.seconds(5);
        let loads = servers.loads();
        let mut rounds: [Vec<Cost>; 2] = Default::default();
        for _ in 0..ROUNDS {
            for (costs, (_, program, load)) in rounds.iter_mut().zip(&loads) {
                costs.push(client::cost(program, load, time).await?);
            }
        }
        let mut result = json!({ "connections": CONNECTIONS, "body_bytes": BODY });
        for ((name, ..), costs) in loads.iter().zip(&rounds) {
            let each = |what: fn(&Cost) -> f64| costs.iter().map(what).collect::<Vec<_>>();
            result[*name] = json!({
                "per_second": each(|cost| cost.per_second),
                "median": median(&each(|cost| cost.per_second)),
                "cpu_us": median(&each(|cost| cost.cpu_us)),
                "system_us": median(&each(|cost| cost.system_us)),
            });
        }
        let ratios = rounds[0].iter().zip(&rounds[1]).map(|(ours, nginx)| ours.per_second / nginx.per_second);
        result["ratio"] = median(&ratios.collect::<Vec<_>>()).into();
        let rate = result["wxtokend"]["median"].as_f64().unwrap_or(0.0) / 2.0;
        result["rate"] = rate.into();
        let direct = Load::calls(servers.upstream.address, "/");
        for (name, load) in [("direct", &direct), (loads[0].0, &loads[0].2), (loads[1].0, &loads[1].2)] {
            let run = at_rate(load, rate, options.seconds(10)).await?;
            let us = |share| run.latencies.value_at_quantile(share) as f64 / 1e3;
            result["paced"][name] = json!({ "p50_us": us(0.5), "p99_us": us(0.99), "p999_us": us(0.999) });
        }
        Ok(result)
    })
}

impl Servers {
    async fn start() -> Outcome<Self> {
        let plan = Plan { max_per_second: 1000, ..Plan::of(ACCOUNTS) };
        let folder = tempfile::tempdir()?;
        let this = std::env::current_exe()?;
        let mut command = on(CLIENTS, this.to_str().ok_or("no path")?);
        command.args(["wechat", &BODY.to_string()]);
        let upstream = lab::started(command, folder.path(), "upstream.log", "bare").await?;
        let lab = Lab::new(&plan).await?;
        lab.call_instead(&plan, upstream.address)?;
        let daemon = lab.daemon(SERVER).await?;
        until_ready(daemon.address).await?;
        let nginx = nginx(lab.folder.path(), upstream.address).await?;
        Ok(Self { _lab: lab, daemon, nginx, upstream })
    }

    fn loads(&self) -> [(&'static str, &Program, Load); 2] {
        let ours = Load::calls(self.daemon.address, &format!("/proxy/{}/", appid(0)));
        [("wxtokend", &self.daemon, ours), ("nginx", &self.nginx, Load::calls(self.nginx.address, "/"))]
    }
}

impl Load {
    /// The same business call, below `base`.
    fn calls(address: SocketAddr, base: &str) -> Self {
        let request = format!(
            "GET {base}{CALL} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {KEY}\r\nAccept: */*\r\n\r\n"
        );
        let requests = Arc::new(vec![request.into_bytes()]);
        Self { address, protocol: Protocol::Http, connections: CONNECTIONS, requests }
    }
}

/// Starts an nginx with one worker, which keeps its connections to `upstream`; returns once it answers.
async fn nginx(folder: &Path, upstream: SocketAddr) -> Outcome<Program> {
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let config = folder.join("nginx.conf");
    std::fs::write(
        &config,
        format!(
            "worker_processes 1;\ndaemon off;\nmaster_process off;\npid {0}/nginx.pid;\nerror_log {0}/nginx.log;\n\
             events {{ worker_connections 4096; }}\nhttp {{\n  access_log off;\n  client_body_temp_path {0};\n  \
             proxy_temp_path {0};\n  fastcgi_temp_path {0};\n  uwsgi_temp_path {0};\n  scgi_temp_path {0};\n  \
             keepalive_requests 1000000000;\n  upstream wechat {{ server {upstream}; keepalive 256; \
             keepalive_requests 1000000000; }}\n  server {{\n    listen {address};\n    location / {{\n      \
             proxy_pass http://wechat;\n      proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n    \
             }}\n  }}\n}}\n",
            folder.display()
        ),
    )?;
    let mut command = on(SERVER, "nginx");
    command.arg("-c").arg(&config);
    let log = File::create(folder.join("nginx.err"))?;
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?;
    let program = Program::of(child, address);
    let up = async {
        while tokio::net::TcpStream::connect(address).await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(30), up).await.map_err(|_| "nginx does not answer")?;
    Ok(program)
}
