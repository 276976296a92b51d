//! `wxtokend token`.

use std::ops::ControlFlow;

use serde::Deserialize;
use wxtokend_core::secret::Secret;

use super::args::Token;
use super::client::{Client, read};
use super::failure::Failure;
use super::output;
use super::signals::Stop;
use super::stream::{News, Stream};
use crate::daemon::telemetry::logging;

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    version: u64,
}

pub(super) async fn token(args: Token) -> Result<(), Failure> {
    let client = Client::new(args.server)?;
    let appid = args.appid.as_str();
    if args.watch {
        let mut stop = Stop::listen()?;
        return tokio::select! {
            ended = watch(&client, appid) => ended,
            _ = stop.asked() => Ok(()),
        };
    }
    let (token, _) = current(&client, appid).await?;
    output::print(&format!("{}\n", token.expose()))
}

/// The token and its version.
async fn current(client: &Client, appid: &str) -> Result<(Secret, u64), Failure> {
    let answer = client.get(&["v1", "accounts", appid, "token"], &[]).await?;
    let Answer { access_token, version } = read(answer)?;
    Ok((Secret::new(access_token), version))
}

/// Prints the token, and each that follows it.
async fn watch(client: &Client, appid: &str) -> Result<(), Failure> {
    let mut stream = Stream::new(client, Some(appid));
    let mut printed = 0;
    loop {
        match stream.next_telling().await? {
            // After a reload there may be no such account any more, which it says then.
            News::Event { name, .. } if !matches!(&*name, "token" | "reload" | "gap") => continue,
            News::Open | News::Event { .. } | News::Lost(_) => {}
        }
        match current(client, appid).await {
            Ok((token, version)) if version != printed => {
                printed = version;
                if let ControlFlow::Break(()) = output::print_on(&format!("{}\n", token.expose()))? {
                    return Ok(());
                }
            }
            Ok(_) => {}
            // The next event tells when there is one.
            Err(Failure::Later(why)) => logging::tell(&format!("{why}\n")),
            Err(failure) => return Err(failure),
        }
    }
}
