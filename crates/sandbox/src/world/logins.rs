//! Logins of users, below `/sns/`: by the AppSecret and a code, or by the user's own token.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::RngExt;
use serde_json::{Value, json};
use wxtokend_core::account::Appid;

use super::World;
use crate::answers::{INVALID_CREDENTIAL, Outcome, Refusal};
use crate::users::{BadCode, User};
use crate::wire::Request;

/// Length of a user's tokens.
const LENGTH: usize = 107;

impl World {
    /// Calls about a user's login. None uses an access_token of the account.
    pub(super) fn login(&mut self, request: &Request, now: Duration) -> Outcome {
        match request.plain_path().as_ref() {
            "/sns/jscode2session" => {
                let user = self.user_of_code("js_code", request, now)?;
                let key: [u8; 16] = self.rng.random();
                let key = STANDARD.encode(key);
                Ok(json!({"session_key": key, "openid": user.openid(), "unionid": user.unionid()}))
            }
            "/sns/oauth2/access_token" => {
                let user = self.user_of_code("code", request, now)?;
                let refresh_token = self.random_text(self.token_alphabet(), LENGTH);
                self.users.let_renew(refresh_token.clone(), user.clone(), now);
                Ok(self.granted(user, &refresh_token, now))
            }
            "/sns/oauth2/refresh_token" => {
                let appid = self.known(request.param("appid"))?;
                let wants =
                    request.param("grant_type").is_none_or(|grant_type| grant_type == "refresh_token");
                wants.then_some(()).ok_or(40002)?;
                let refresh_token = request.param("refresh_token").ok_or(41003)?;
                let user = match self.users.by_refresh_token(refresh_token, now) {
                    Some((user, true)) if user.appid == appid => user.clone(),
                    Some((user, false)) if user.appid == appid => return Err(42002.into()),
                    _ => return Err(40030.into()),
                };
                Ok(self.granted(user, refresh_token, now))
            }
            "/sns/userinfo" => {
                let user = self.user_of_token(request, now)?;
                Ok(json!({
                    "openid": user.openid(), "nickname": user.name, "sex": 0, "province": "", "city": "",
                    "country": "", "headimgurl": "", "privilege": [], "unionid": user.unionid(),
                }))
            }
            "/sns/auth" => {
                self.user_of_token(request, now)?;
                Ok(json!({"errcode": 0, "errmsg": "ok"}))
            }
            _ if request.param("access_token").is_some() => Err(invalid_credential()),
            _ => {
                self.application(request, now)?;
                Err(40029.into())
            }
        }
    }

    /// Returns the account whose application asks, by appid and AppSecret.
    fn application(&self, request: &Request, now: Duration) -> Result<Appid, Refusal> {
        let appid = self.known(request.param("appid"))?;
        self.authenticate(&appid, request.param("secret"), request, now)?;
        Ok(appid)
    }

    fn user_of_code(&mut self, name: &str, request: &Request, now: Duration) -> Result<User, Refusal> {
        let appid = self.application(request, now)?;
        if request.param("grant_type").is_some_and(|grant_type| grant_type != "authorization_code") {
            return Err(40002.into());
        }
        let code = request.param(name).ok_or(41008)?;
        self.users.exchange(&appid, code).map_err(|bad| match bad {
            BadCode::Invalid => 40029.into(),
            BadCode::Used => 40163.into(),
        })
    }

    fn user_of_token(&self, request: &Request, now: Duration) -> Result<User, Refusal> {
        let token = request.param("access_token").ok_or(41001)?;
        let user = match self.users.by_access_token(token, now) {
            Some((user, true)) => user.clone(),
            Some((_, false)) => return Err(42001.into()),
            None => return Err(invalid_credential()),
        };
        let openid = request.param("openid").ok_or(41009)?;
        if openid == user.openid() { Ok(user) } else { Err(40003.into()) }
    }

    fn granted(&mut self, user: User, refresh_token: &str, now: Duration) -> Value {
        let access_token = self.random_text(self.token_alphabet(), LENGTH);
        let answer = json!({
            "access_token": access_token, "expires_in": self.token_lifetime.as_secs(), "refresh_token": refresh_token,
            "openid": user.openid(), "scope": "snsapi_userinfo", "unionid": user.unionid(),
        });
        self.users.grant(access_token, user, now + self.token_lifetime);
        answer
    }
}

fn invalid_credential() -> Refusal {
    Refusal { errcode: 40001, errmsg: Some(INVALID_CREDENTIAL.to_owned()) }
}
