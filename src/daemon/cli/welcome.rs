//! What a newcomer is told, so that the next step can be copied.

use std::net::SocketAddr;

use super::embedded_sandbox::Times;
use super::source::Source;
use crate::config::{Config, duration};

/// What there is to see.
pub(super) struct Overview<'a> {
    pub(super) source: &'a Source,
    pub(super) config: &'a Config,
    pub(super) times: Times,
    pub(super) simulation: SocketAddr,
}

/// After `run --sandbox` has started.
pub(super) fn to_rehearsal(scene: &Overview<'_>, api: SocketAddr, metrics: Option<SocketAddr>) -> String {
    let Overview { config, simulation, .. } = scene;
    let program = std::env::args().next().unwrap_or_else(|| "wxtokend".to_owned());
    let appid = first_appid(config);
    let server = match api.to_string().as_str() {
        "127.0.0.1:8787" => String::new(),
        elsewhere => format!(" --server {elsewhere}"),
    };
    let (key, bearer) = match config.api.clients.is_empty() {
        true => ("", ""),
        false => ("WXTOKEND_KEY=… ", " -H \"Authorization: Bearer $WXTOKEND_KEY\""),
    };
    let metrics = metrics.map_or_else(String::new, |at| format!("\n    curl http://{at}/metrics"));
    format!(
        "
  wxtokend runs on a simulated WeChat: nothing real is touched, and Ctrl-C leaves nothing behind.
  {about}

  Look, in a browser: http://{api}/
  And in another terminal:
    {key}{program} status{server}
    curl{bearer} http://{api}/v1/accounts/{appid}/token{metrics}

  Break something, and see what it says:
    curl -d '{{\"kind\":\"errcode\",\"errcode\":40164}}' http://{simulation}/_sandbox/accounts/{appid}/faults
    {key}{program} refresh {appid}{server}
  Mend it, and refresh again:
    curl -X DELETE http://{simulation}/_sandbox/accounts/{appid}/faults

  What WeChat would know: curl http://{simulation}/_sandbox/accounts

",
        about = about(scene),
    )
}

/// After `sandbox` has started. No AppSecret is shown: the file may hold real ones.
pub(super) fn to_sandbox(scene: &Overview<'_>) -> String {
    let Overview { config, simulation, .. } = scene;
    let appid = first_appid(config);
    format!(
        "
  A simulated WeChat: let your application call http://{simulation} instead of https://api.weixin.qq.com
  {about}

  A token, with the secret that the file gives the account:
    curl 'http://{simulation}/cgi-bin/token?grant_type=client_credential&appid={appid}&secret=SECRET'

  Its control API, under http://{simulation}/_sandbox:
    what is true    curl http://{simulation}/_sandbox/accounts
    a new account   curl -X PUT -d '{{\"secret\":\"S\"}}' http://{simulation}/_sandbox/accounts/APPID
    three failures  curl -d '{{\"kind\":\"errcode\",\"errcode\":-1,\"times\":3}}' http://{simulation}/_sandbox/faults
    an outage       curl -X PUT -d '{{\"kind\":\"status:502\"}}' http://{simulation}/_sandbox/outage
    its end         curl -X DELETE http://{simulation}/_sandbox/outage

",
        about = about(scene),
    )
}

fn about(scene: &Overview<'_>) -> String {
    let Overview { source, config, times, .. } = scene;
    let accounts = match config.accounts.len() {
        1 => "One account".to_owned(),
        more => format!("{more} accounts"),
    };
    let (lifetime, overlap) = (duration::show(times.lifetime), duration::show(times.overlap));
    format!("{accounts} from {source}. Tokens live for {lifetime}, and for {overlap} beside their successor.")
}

fn first_appid(config: &Config) -> &str {
    config.accounts.first().map_or("APPID", |account| account.appid.as_str())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn told(text: &str) -> (String, String) {
        let config = Config::parse(text, Path::new("accounts.yaml"), |_| None).unwrap();
        let scene = Overview {
            source: &Source::Embedded,
            config: &config,
            times: Times::new(None, None).unwrap(),
            simulation: "127.0.0.1:4000".parse().unwrap(),
        };
        let (api, metrics) = ("127.0.0.1:5000".parse().unwrap(), "127.0.0.1:6000".parse().unwrap());
        (to_rehearsal(&scene, api, Some(metrics)), to_sandbox(&scene))
    }

    const ACCOUNTS: &str = "accounts: [{ appid: wx1, secret: hunter2 }, { appid: wx2, secret: hunter2 }]";

    #[test]
    fn a_newcomer_is_told_where_everything_is() {
        let (rehearsal, sandbox) = told(ACCOUNTS);
        for line in [
            "  Look, in a browser: http://127.0.0.1:5000/\n",
            "    curl http://127.0.0.1:5000/v1/accounts/wx1/token\n",
            "    curl http://127.0.0.1:6000/metrics\n",
            " status --server 127.0.0.1:5000\n",
            "    curl -d '{\"kind\":\"errcode\",\"errcode\":40164}' http://127.0.0.1:4000/_sandbox/accounts/wx1/faults\n",
            "2 accounts from the built-in example. Tokens live for 1m, and for 10s beside",
        ] {
            assert!(rehearsal.contains(line), "{line:?} is not in\n{rehearsal}");
        }
        assert!(sandbox.contains("appid=wx1&secret=SECRET'"), "{sandbox}");
        assert!(!format!("{rehearsal}{sandbox}").contains("hunter2"));
    }

    #[test]
    fn with_clients_the_key_comes_from_the_environment() {
        let (rehearsal, _) = told(&format!(
            "api: {{ clients: [{{ name: c, key: hunter2-key, accounts: ['*'] }}] }}\n{ACCOUNTS}"
        ));
        assert!(
            rehearsal.contains("curl -H \"Authorization: Bearer $WXTOKEND_KEY\" http://127.0.0.1:5000/v1")
        );
        assert!(!rehearsal.contains("hunter2"));
    }
}
