//! Command-line arguments.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use reqwest::Url;
use wxtokend_core::account::Appid;

use crate::config::duration;
use crate::daemon::telemetry::logging::Format;

/// Keeps the access_token of every WeChat account fresh, and hands it to whoever may have it.
#[derive(Debug, Parser)]
#[command(name = "wxtokend", version, after_help = AFTER_HELP, max_term_width = 100)]
pub(super) struct Cli {
    /// How log lines are written, on stderr: text or json
    #[arg(
        long,
        global = true,
        value_enum,
        hide_possible_values = true,
        value_name = "FORMAT",
        default_value = "text"
    )]
    pub(super) log_format: Format,
    /// Allow core dumps and debuggers, which see every secret
    #[arg(long, global = true)]
    pub(super) core_dumps: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

const AFTER_HELP: &str = "\
Try it, without any account at WeChat:
  wxtokend run --sandbox
  wxtokend status                                 (in another terminal)

Environment:
  WXTOKEND_SERVER  the daemon that status, token and refresh ask
  WXTOKEND_KEY     the client key they send; as an argument others on the machine could read it
  RUST_LOG         what is logged: error, warn, info (default), debug, or wxtokend::fleet=debug
  NO_COLOR         no colours

Exit codes: 0 done, or asked to stop; 1 failed; 2 bad usage or configuration.";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Run(Run),
    Check(Check),
    Status(Status),
    Token(Token),
    Refresh(Refresh),
    Sandbox(Sandbox),
}

impl Command {
    /// Whether the command runs as a server until it is asked to stop.
    pub(super) fn is_server(&self) -> bool {
        matches!(self, Self::Run(_) | Self::Sandbox(_))
    }
}

/// Run the daemon
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  wxtokend run --config /etc/wxtokend/accounts.yaml
  wxtokend run --sandbox                           nothing real is touched
  wxtokend run --sandbox --token-lifetime 30s --overlap 5s

Signals: SIGHUP reads the configuration again; SIGTERM and SIGINT stop within 10 s, a second one at once.")]
pub(super) struct Run {
    /// The configuration [default: accounts.yaml; with --sandbox, if there is none, accounts.example.yaml or the
    /// built-in example]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Use a simulated WeChat that knows the configured accounts, and a temporary store
    #[arg(long)]
    pub(super) sandbox: bool,
    /// With --sandbox: how long tokens live [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, requires = "sandbox")]
    pub(super) token_lifetime: Option<Duration>,
    /// With --sandbox: how long a token still works after the next is minted [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, requires = "sandbox")]
    pub(super) overlap: Option<Duration>,
}

/// Check the configuration, and show what it comes to, without secrets
#[derive(Debug, Args)]
#[command(after_help = "\
Errors go to stderr, and the exit code is 2. Warnings, of what is allowed and probably not meant, stand behind the
settings; the last line counts them.")]
pub(super) struct Check {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = "accounts.yaml")]
    pub(super) config: PathBuf,
    /// Take warnings for errors
    #[arg(long)]
    pub(super) strict: bool,
}

/// Show the accounts of a running daemon, those in trouble first
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  wxtokend status
  wxtokend status --json | jq '.[] | select(.state != \"fresh\")'
  wxtokend status --watch                          a table that is kept up to date
  wxtokend status --watch | grep parked            a line for each change
  WXTOKEND_KEY=$(cat /run/secrets/key) wxtokend status --server http://10.0.0.5:8787")]
pub(super) struct Status {
    #[command(flatten)]
    pub(super) server: Server,
    /// Print the accounts as one JSON array
    #[arg(long)]
    pub(super) json: bool,
    /// Go on, and show what changes: on a terminal the table, else a line for each change; with --json each
    /// event as one JSON object a line
    #[arg(long)]
    pub(super) watch: bool,
}

/// Print the access_token of an account
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  curl -G https://api.weixin.qq.com/cgi-bin/get_api_domain_ip \\
       --data-urlencode \"access_token=$(wxtokend token APPID)\"
  wxtokend token APPID --watch | while read -r token; do ...; done")]
pub(super) struct Token {
    /// The account
    #[arg(value_name = "APPID")]
    pub(super) appid: Appid,
    /// Go on, and print each new token as soon as there is one
    #[arg(long)]
    pub(super) watch: bool,
    #[command(flatten)]
    pub(super) server: Server,
}

/// Ask WeChat for the token of an account now, also when the account is parked
#[derive(Debug, Args)]
pub(super) struct Refresh {
    /// The account
    #[arg(value_name = "APPID")]
    pub(super) appid: Appid,
    /// On stable_token: replace a token that still lives; WeChat allows this 20 times a day
    #[arg(long)]
    pub(super) force: bool,
    #[command(flatten)]
    pub(super) server: Server,
}

/// Serve a simulated WeChat alone, to develop applications against
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  wxtokend sandbox
  wxtokend sandbox --token-lifetime 2h --overlap 5m   as long as at WeChat
  wxtokend sandbox --tls-ca ca.pem                    by HTTPS, for clients that trust ca.pem
  curl http://127.0.0.1:8788/_sandbox/accounts        what is true")]
pub(super) struct Sandbox {
    /// The configuration whose accounts it knows [default: accounts.yaml, else accounts.example.yaml, else the
    /// built-in example]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Where it listens; anybody who reaches it can read its tokens [default: 127.0.0.1:8788, or another port if
    /// that one is taken]
    #[arg(long, value_name = "ADDRESS")]
    pub(super) listen: Option<SocketAddr>,
    /// How long tokens live [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(super) token_lifetime: Option<Duration>,
    /// How long a token still works after the next is minted [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(super) overlap: Option<Duration>,
    /// Speak HTTPS only, as api.weixin.qq.com, localhost and 127.0.0.1: a CA is made at the start, and its
    /// certificate, which clients must trust, is written to FILE; its key is not
    #[arg(long, value_name = "FILE")]
    pub(super) tls_ca: Option<PathBuf>,
    /// Another name or IP address that the HTTPS certificate is good for; can be repeated
    #[arg(long, value_name = "NAME", requires = "tls_ca")]
    pub(super) tls_name: Vec<String>,
}

/// Which daemon is asked.
#[derive(Debug, Args)]
pub(super) struct Server {
    /// The daemon to ask. The key, if it wants one, is taken from the environment variable WXTOKEND_KEY
    #[arg(
        long,
        value_name = "URL",
        env = "WXTOKEND_SERVER",
        hide_env_values = true,
        default_value = "http://127.0.0.1:8787",
        value_parser = server
    )]
    pub(super) server: Url,
    /// A file that holds the key, instead of WXTOKEND_KEY
    #[arg(long, value_name = "FILE")]
    pub(super) key_file: Option<PathBuf>,
}

/// Parses `http://host:port`, or `host:port` for short.
fn server(text: &str) -> Result<Url, &'static str> {
    const EXPECTED: &str = "an address is wanted such as http://127.0.0.1:8787";
    let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let url = Url::parse(&text).map_err(|_| EXPECTED)?;
    let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    let fits = matches!(url.scheme(), "http" | "https") && url.has_host() && plain;
    if fits { Ok(url) } else { Err(EXPECTED) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(line: &str) -> Result<Cli, ErrorKind> {
        Cli::try_parse_from(line.split(' ')).map_err(|error| error.kind())
    }

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_are_read_as_in_the_configuration() {
        let Ok(Cli { command: Command::Run(run), .. }) =
            parse("wxtokend run --sandbox --token-lifetime 1500ms --overlap 2m")
        else {
            panic!("a run expected")
        };
        assert_eq!(run.token_lifetime, Some(Duration::from_millis(1500)));
        assert_eq!(run.overlap, Some(Duration::from_secs(120)));
        for bad in ["60", "0s", "1.5s", "-5s"] {
            let line = format!("wxtokend run --sandbox --token-lifetime={bad}");
            assert_eq!(parse(&line).unwrap_err(), ErrorKind::ValueValidation, "{bad}");
        }
    }

    #[test]
    fn the_flags_of_the_simulation_need_the_simulation() {
        for flag in ["--token-lifetime 60s", "--overlap 10s"] {
            let line = format!("wxtokend run {flag}");
            assert_eq!(parse(&line).unwrap_err(), ErrorKind::MissingRequiredArgument, "{flag}");
        }
        assert!(parse("wxtokend run").is_ok());
    }

    #[test]
    fn the_log_format_may_stand_anywhere() {
        for line in ["wxtokend --log-format json run", "wxtokend run --log-format json"] {
            assert_eq!(parse(line).unwrap().log_format, Format::Json);
        }
        assert_eq!(parse("wxtokend run").unwrap().log_format, Format::Text);
    }

    #[test]
    fn a_key_is_no_argument() {
        assert_eq!(parse("wxtokend status --key hunter2").unwrap_err(), ErrorKind::UnknownArgument);
    }

    #[test]
    fn a_server_is_a_url_or_an_address() {
        for (text, url) in [
            ("http://10.0.0.5:80", "http://10.0.0.5/"),
            ("localhost:1", "http://localhost:1/"),
            ("https://tokens.example/wx/", "https://tokens.example/wx/"),
        ] {
            assert_eq!(server(text).unwrap().as_str(), url);
        }
        for bad in ["", "ftp://x", "http://", "http://user:pass@x", "unix:///run/x"] {
            assert!(server(bad).is_err(), "{bad}");
        }
    }
}
