//! `wxtokend status`.

use serde_json::Value;

use super::accounts::{as_table, list};
use super::args::Status;
use super::client::DaemonClient;
use super::failure::Failure;
use super::output;
use super::watch::watch;

pub(super) async fn status(args: Status) -> Result<(), Failure> {
    let client = DaemonClient::new(args.server)?;
    if args.watch {
        return watch(&client, args.json).await;
    }
    let listing = list(&client).await?;
    if args.json {
        return output::print(&as_json(&listing.accounts));
    }
    output::print(&as_table(listing)?)
}

/// Formats one JSON array with one account per line.
fn as_json(accounts: &[Value]) -> String {
    let lines: Vec<_> = accounts.iter().map(Value::to_string).collect();
    if lines.is_empty() { "[]\n".to_owned() } else { format!("[\n{}\n]\n", lines.join(",\n")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_is_one_array_of_what_the_daemon_said() {
        let accounts = vec![json!({"appid": "wx1", "state": "fresh"}), json!({"appid": "wx2"})];
        assert_eq!(serde_json::from_str::<Vec<Value>>(&as_json(&accounts)).unwrap(), accounts);
        assert_eq!(as_json(&[]), "[]\n");
    }
}
