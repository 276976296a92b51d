//! The library in a program of its own: `cargo run --example embedded`.
//!
//! WeChat is simulated in the same process, with tokens that live for 8 s, so that within 10 s a token can be seen
//! to be refreshed, to die and to be replaced, and an account to get into trouble. No real account is touched.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::future::pending;
use std::time::Duration;

use tokio::net::TcpListener;
use wxtokend::config::UpstreamConfig;
use wxtokend::sandbox::{Fault, Sandbox, Settings};
use wxtokend::{Account, Appid, Fleet, Secret, Store, TokenError};

const LIFETIME: Duration = Duration::from_secs(8);
const OVERLAP: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let shop = Appid::new("wx5e1f00000000000a")?;
    let library = Appid::new("wx5e1f00000000000b")?;
    let accounts = vec![
        (shop.clone(), Secret::new("the AppSecret of the shop")),
        (library.clone(), Secret::new("the AppSecret of the library")),
    ];

    // WeChat, simulated. The library's account lacks our address in its whitelist.
    let wechat = Sandbox::new(Settings {
        token_lifetime: LIFETIME,
        overlap: OVERLAP,
        accounts: accounts.clone(),
        ..Settings::default()
    });
    wechat.inject(Some(&library), Fault::errcode(40164));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let base_url = format!("http://{}/", listener.local_addr()?).parse()?;
    let serving = tokio::spawn({
        let wechat = wechat.clone();
        async move { wechat.serve(listener, pending()).await }
    });

    // With real accounts the upstream is left out, and the store is a file: Store::file("tokens.redb").
    let upstream =
        UpstreamConfig { base_urls: vec![base_url], overlap: OVERLAP, ..UpstreamConfig::default() };
    let fleet = Fleet::builder()
        .accounts(accounts.into_iter().map(|(appid, secret)| Account::new(appid, secret)))
        .upstream(upstream)
        .store(Store::in_memory())
        .start()
        .await?;

    // A read waits for the very first token; from then on it is answered out of memory.
    let token = fleet.token(&shop).await?;
    println!("shop: version {}, to be relied on for {:?}", token.version(), token.expires_in());

    // WeChat answers a call with 40001, for a reason that is not the token's.
    let rejected = fleet.reject(&shop, &token).await?;
    println!("shop: reported as refused, and it is {:?}", rejected.outcome);

    // An account in trouble delays no other, and says what to do.
    match fleet.token(&library).await {
        Err(TokenError::Unavailable(why)) => {
            let advice = why.last_fault.map(|fault| fault.advice).unwrap_or_default();
            println!("library: {:?}; {advice}", why.state);
        }
        other => println!("library: {other:?}"),
    }

    // A refresh, a while before the token ends; the one before lives on for the overlap.
    let mut tokens = fleet.watch(&shop)?;
    let (Some(before), Some(after)) = (tokens.next().await, tokens.next().await) else {
        return Err("the shop was removed".into());
    };
    println!("shop: version {} has followed {}", after.version(), before.version());
    println!("shop: WeChat still honours the one before: {}", wechat.is_alive(before.access_token()));

    // Somebody else mints and mints again, and our token is dead. Whoever hears of it first reports it.
    wechat.kill_tokens(&shop);
    let rejected = fleet.reject(&shop, &after).await?;
    println!("shop: reported as refused, and it is {:?} by version {}", rejected.outcome, rejected.version);

    println!();
    for account in fleet.accounts() {
        println!(
            "{}  {:?}, version {}, {} of {} calls may be made now",
            account.appid, account.state, account.version, account.budget.remaining, account.budget.limit
        );
    }

    fleet.shutdown().await;
    serving.abort();
    Ok(())
}
