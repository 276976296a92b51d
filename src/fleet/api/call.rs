//! Calls WeChat with an account's token, and once more when WeChat refuses it.

use wxtokend_core::fault::TOKEN_REFUSED;
use wxtokend_core::token::Token;

use super::answers::TokenError;
use super::handle::Fleet;
use crate::fleet::cells::tally::RejectionOutcome;

impl Fleet {
    /// Calls WeChat with the token of `appid` by `send`, and once more with a new token if WeChat refuses the first.
    ///
    /// `errcode` reads the top-level `errcode` of an answer. On 40001, 40014 or 42001 the token is reported
    /// ([`Fleet::reject`]); only if it is found dead, or has been replaced already, is `send` called again. This is
    /// safe for every call, since WeChat refuses a token before it does anything. An answer that says something else
    /// is returned as it is, as is the second one.
    ///
    /// # Errors
    /// Those of `send`, after which nothing is repeated, and [`TokenError`] as one of them: there is no token to call
    /// with.
    ///
    /// # Example
    /// ```
    /// # async fn ask_wechat(token: wxtokend::Token) -> Result<serde_json::Value, std::io::Error> { unimplemented!() }
    /// # async fn example(fleet: wxtokend::Fleet) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    /// let send = async |token| Ok::<_, Box<dyn std::error::Error + Send + Sync>>(ask_wechat(token).await?);
    /// let errcode = |answer: &serde_json::Value| answer["errcode"].as_i64();
    /// let answer = fleet.call("wx0123456789abcdef", send, errcode).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn call<T, E, Sent>(
        &self,
        appid: impl AsRef<str>,
        mut send: impl FnMut(Token) -> Sent,
        errcode: impl Fn(&T) -> Option<i64>,
    ) -> Result<T, E>
    where
        E: From<TokenError>,
        Sent: Future<Output = Result<T, E>>,
    {
        let appid = appid.as_ref();
        let token = self.token(appid).await?;
        let answer = send(token.clone()).await?;
        if !errcode(&answer).is_some_and(|errcode| TOKEN_REFUSED.contains(&errcode)) {
            return Ok(answer);
        }
        let rejected = self.reject(appid, &token).await?;
        match (rejected.outcome, rejected.token) {
            (RejectionOutcome::Refreshed | RejectionOutcome::Superseded, Some(token)) => send(token).await,
            _ => Ok(answer),
        }
    }
}
