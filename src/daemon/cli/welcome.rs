//! Instructions for new users, with commands to copy.

use std::net::SocketAddr;
use std::path::Path;

use super::embedded_sandbox::Times;
use super::source::Source;
use crate::config::{Config, duration};

/// What the instructions refer to.
pub(super) struct Overview<'a> {
    pub(super) source: &'a Source,
    pub(super) config: &'a Config,
    pub(super) times: Times,
    pub(super) sandbox_address: SocketAddr,
}

/// The message after the start of `run --sandbox`.
pub(super) fn sandbox_run_message(
    overview: &Overview<'_>,
    api: SocketAddr,
    metrics: Option<SocketAddr>,
) -> String {
    let Overview { config, sandbox_address, .. } = overview;
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
    curl -d '{{\"kind\":\"errcode\",\"errcode\":40164}}' http://{sandbox_address}/_sandbox/accounts/{appid}/faults
    {key}{program} refresh {appid}{server}
  Undo that, and refresh again:
    curl -X DELETE http://{sandbox_address}/_sandbox/accounts/{appid}/faults

  The simulated WeChat's own records: curl http://{sandbox_address}/_sandbox/accounts

",
        about = about(overview),
    )
}

/// The message after the start of `sandbox`, which speaks HTTPS if there is a file with the certificate of its
/// CA. It shows no AppSecret, since the file may contain real ones.
pub(super) fn sandbox_message(overview: &Overview<'_>, ca: Option<&Path>) -> String {
    let Overview { config, sandbox_address, .. } = overview;
    let appid = first_appid(config);
    let (url, curl, trust) = match ca {
        None => (format!("http://{sandbox_address}"), "curl".to_owned(), String::new()),
        Some(ca) => {
            let ca = ca.display();
            let trust = format!("\n  Your application must trust the certificate in {ca}.");
            (format!("https://{sandbox_address}"), format!("curl --cacert {ca}"), trust)
        }
    };
    format!(
        "
  A simulated WeChat: let your application call {url} instead of https://api.weixin.qq.com{trust}
  {about}

  A token, with the secret that the file gives the account:
    {curl} '{url}/cgi-bin/token?grant_type=client_credential&appid={appid}&secret=SECRET'

  Its control API, under {url}/_sandbox:
    what is true    {curl} {url}/_sandbox/accounts
    what was asked  {curl} {url}/_sandbox/requests
    a new account   {curl} -X PUT -d '{{\"secret\":\"S\"}}' {url}/_sandbox/accounts/APPID
    three failures  {curl} -d '{{\"kind\":\"errcode\",\"errcode\":-1,\"times\":3}}' {url}/_sandbox/faults
    two hours pass  {curl} -d '{{\"advance\":\"2h\"}}' {url}/_sandbox/clock
    an outage       {curl} -X PUT -d '{{\"kind\":\"status:502\"}}' {url}/_sandbox/outage
    its end         {curl} -X DELETE {url}/_sandbox/outage

",
        about = about(overview),
    )
}

fn about(overview: &Overview<'_>) -> String {
    let Overview { source, config, times, .. } = overview;
    let accounts = match config.accounts.len() {
        1 => "One account".to_owned(),
        more => format!("{more} accounts"),
    };
    let (lifetime, overlap) = (duration::show(times.lifetime), duration::show(times.overlap));
    format!("{accounts} from {source}. Tokens live for {lifetime}, a replaced one for {overlap} more.")
}

fn first_appid(config: &Config) -> &str {
    config.accounts.first().map_or("APPID", |account| account.appid.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(text: &str) -> (String, String) {
        let config = Config::parse(text, Path::new("accounts.yaml"), |_| None).unwrap();
        let overview = Overview {
            source: &Source::Embedded,
            config: &config,
            times: Times::new(None, None).unwrap(),
            sandbox_address: "127.0.0.1:4000".parse().unwrap(),
        };
        let (api, metrics) = ("127.0.0.1:5000".parse().unwrap(), "127.0.0.1:6000".parse().unwrap());
        (sandbox_run_message(&overview, api, Some(metrics)), sandbox_message(&overview, None))
    }

    const ACCOUNTS: &str = "accounts: [{ appid: wx1, secret: hunter2 }, { appid: wx2, secret: hunter2 }]";

    #[test]
    fn a_newcomer_is_shown_where_everything_is() {
        let (sandbox_run, sandbox) = messages(ACCOUNTS);
        for line in [
            "  Look, in a browser: http://127.0.0.1:5000/\n",
            "    curl http://127.0.0.1:5000/v1/accounts/wx1/token\n",
            "    curl http://127.0.0.1:6000/metrics\n",
            " status --server 127.0.0.1:5000\n",
            "    curl -d '{\"kind\":\"errcode\",\"errcode\":40164}' http://127.0.0.1:4000/_sandbox/accounts/wx1/faults\n",
            "2 accounts from the built-in example. Tokens live for 1m, a replaced one for 10s more.",
        ] {
            assert!(sandbox_run.contains(line), "{line:?} is not in\n{sandbox_run}");
        }
        assert!(sandbox.contains("appid=wx1&secret=SECRET'"), "{sandbox}");
        assert!(!format!("{sandbox_run}{sandbox}").contains("hunter2"));
    }

    #[test]
    fn with_clients_the_key_comes_from_the_environment() {
        let (sandbox_run, _) = messages(&format!(
            "api: {{ clients: [{{ name: c, key: hunter2-key, accounts: ['*'] }}] }}\n{ACCOUNTS}"
        ));
        assert!(
            sandbox_run.contains("curl -H \"Authorization: Bearer $WXTOKEND_KEY\" http://127.0.0.1:5000/v1")
        );
        assert!(!sandbox_run.contains("hunter2"));
    }
}
