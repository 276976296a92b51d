//! `wxtokend refresh`.

use serde::Deserialize;

use super::args::Refresh;
use super::client::{DaemonClient, LastFault, read};
use super::failure::Failure;
use super::output;

/// The answer without the token that it may carry, which is not printed.
#[derive(Deserialize)]
struct RefreshAnswer {
    outcome: String,
    version: u64,
    expires_in: Option<u64>,
    last_fault: Option<LastFault>,
}

pub(super) async fn refresh(args: Refresh) -> Result<(), Failure> {
    let client = DaemonClient::new(args.server)?;
    let path = ["v1", "accounts", args.appid.as_str(), "token", "refresh"];
    let force: &[_] = if args.force { &[("force", "true")] } else { &[] };
    let answer: RefreshAnswer = read(client.post(&path, force).await?)?;
    let (line, failure) = interpret(&answer);
    output::print(&line)?;
    failure.map_or(Ok(()), Err)
}

/// The line for stdout, and the failure if there is one.
fn interpret(answer: &RefreshAnswer) -> (String, Option<Failure>) {
    let RefreshAnswer { outcome, version, expires_in, last_fault } = answer;
    let validity = expires_in.map_or_else(String::new, |seconds| format!(", good for {seconds} s"));
    let line = format!("{outcome}: version {version}{validity}\n");
    let why = match (outcome.as_str(), last_fault) {
        (_, Some(fault)) => {
            let code = fault.errcode.map_or_else(String::new, |code| format!(" {code}"));
            Some(format!("the call failed ({}{code}): {}\n  → {}", fault.kind, fault.message, fault.advice))
        }
        ("limited", None) => Some(
            "not now: the time between two refreshes, the limit of forced ones or the budget forbids it; \
             the token stays as it is"
                .to_owned(),
        ),
        _ => None,
    };
    (line, why.map(Failure::Failed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interpreted(answer: &str) -> (String, Option<String>) {
        let (line, failure) = interpret(&serde_json::from_str(answer).unwrap());
        (line, failure.map(|failure| failure.to_string()))
    }

    #[test]
    fn a_token_as_good_as_asked_for_is_success() {
        let answer =
            r#"{"outcome":"refreshed","version":5,"appid":"a","access_token":"hunter2","expires_in":58}"#;
        assert_eq!(interpreted(answer), ("refreshed: version 5, good for 58 s\n".to_owned(), None));
        let (line, failure) = interpreted(r#"{"outcome":"still_valid","version":5,"last_fault":null}"#);
        assert_eq!((line.as_str(), failure), ("still_valid: version 5\n", None));
    }

    #[test]
    fn a_refresh_that_did_not_happen_is_a_failure_that_says_why() {
        let (line, failure) = interpreted(r#"{"outcome":"limited","version":5}"#);
        assert_eq!(line, "limited: version 5\n");
        assert!(failure.unwrap().starts_with("not now: "));
        let fault = r#"{"kind":"parked","errcode":40164,"message":"invalid ip","advice":"add IP 1.2.3.4"}"#;
        let (_, failure) =
            interpreted(&format!(r#"{{"outcome":"limited","version":5,"last_fault":{fault}}}"#));
        assert_eq!(failure.unwrap(), "the call failed (parked 40164): invalid ip\n  → add IP 1.2.3.4");
    }
}
