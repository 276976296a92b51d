//! `wxtokend token`.

use std::ops::ControlFlow;

use serde::Deserialize;
use wxtokend_core::secret::Secret;

use super::args::Token;
use super::client::{DaemonClient, read};
use super::failure::Failure;
use super::output;
use super::signals::Stop;
use super::stream::{EventStream, StreamItem};
use crate::daemon::telemetry::logging;

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    version: u64,
}

pub(super) async fn token(args: Token) -> Result<(), Failure> {
    let client = DaemonClient::new(args.server)?;
    let appid = args.appid.as_str();
    if args.watch {
        let mut stop = Stop::listen()?;
        return tokio::select! {
            ended = watch(&client, appid) => ended,
            _ = stop.recv() => Ok(()),
        };
    }
    let (token, _) = current(&client, appid).await?;
    output::print(&format!("{}\n", token.expose()))
}

/// Fetches the token and its version.
async fn current(client: &DaemonClient, appid: &str) -> Result<(Secret, u64), Failure> {
    let answer = client.get(&["v1", "accounts", appid, "token"], &[]).await?;
    let TokenAnswer { access_token, version } = read(answer)?;
    Ok((Secret::new(access_token), version))
}

/// Prints the current token and each new one.
async fn watch(client: &DaemonClient, appid: &str) -> Result<(), Failure> {
    let mut stream = EventStream::new(client, Some(appid));
    let mut printed = 0;
    loop {
        match stream.next_reporting().await? {
            // After a reload the account may be gone; the fetch below then fails.
            StreamItem::Event { name, .. } if !matches!(&*name, "token" | "reload" | "gap") => continue,
            StreamItem::Open | StreamItem::Event { .. } | StreamItem::Lost(_) => {}
        }
        match current(client, appid).await {
            Ok((token, version)) if version != printed => {
                printed = version;
                if let ControlFlow::Break(()) = output::print_part(&format!("{}\n", token.expose()))? {
                    return Ok(());
                }
            }
            Ok(_) => {}
            // A later event announces the next token.
            Err(Failure::Later(why)) => logging::print_message(&format!("{why}\n")),
            Err(failure) => return Err(failure),
        }
    }
}
