//! `wxtokend token`.

use serde::Deserialize;

use super::args::Token;
use super::client::{Client, read};
use super::failure::Failure;
use super::output;
use crate::secret::Secret;

#[derive(Deserialize)]
struct Answer {
    access_token: String,
}

pub(super) async fn token(args: Token) -> Result<(), Failure> {
    let client = Client::new(args.server)?;
    let answer = client.get(&["v1", "accounts", args.appid.as_str(), "token"], &[]).await?;
    let Answer { access_token } = read(answer)?;
    let token = Secret::new(access_token);
    output::print(&format!("{}\n", token.expose()))
}
