//! What is wrong with a Redis, in words without secrets.

use redis::{ErrorKind, RedisError};

/// Why a Redis does not take what we write. Of an error that Redis itself words only the code is told: it may quote
/// the command, and with it keys and tokens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Trouble(String);

impl From<RedisError> for Trouble {
    fn from(error: RedisError) -> Self {
        let told = if error.is_timeout() {
            "no answer in time".to_owned()
        } else if error.kind() == ErrorKind::AuthenticationFailed {
            "Redis refuses the user name or the password".to_owned()
        } else if error.kind() == ErrorKind::Io {
            without_answer(&error)
        } else {
            refusal(error)
        };
        Self(told)
    }
}

/// The system's words, or those of TLS.
fn without_answer(error: &RedisError) -> String {
    let told = error.to_string();
    if told.contains("corrupt message") { "it does not speak TLS on this port".to_owned() } else { told }
}

fn refusal(error: RedisError) -> String {
    let kind = error.kind();
    let Some(errors) = error.into_server_errors() else {
        return format!("Redis does not answer as it should ({kind:?})");
    };
    let (code, details) = errors.first().map_or(("", None), |(_, error)| (error.code(), error.details()));
    let is_a_code = code.len() <= 20 && code.bytes().all(|byte| byte.is_ascii_uppercase());
    let code = if is_a_code { code } else { "ERR" };
    let advice = match code {
        "NOAUTH" => ": it wants a password",
        "NOPERM" => {
            ": its ACL must allow SET, GET, DEL, HSET, HGET, EXPIRE, EVAL, MULTI, EXEC and PING on the keys"
        }
        "READONLY" => ": it is a replica",
        "OOM" => ": its memory is full",
        "MISCONF" => ": it cannot save to its disk",
        "LOADING" => ": it is loading its data",
        "MOVED" | "CROSSSLOT" | "CLUSTERDOWN" => ": it is a cluster, which is not supported",
        _ if details.is_some_and(|details| details.contains("unknown command")) => {
            ": it does not know one of the commands SET, GET, DEL, HSET, HGET, EXPIRE, EVAL, MULTI, EXEC and PING"
        }
        _ => "",
    };
    format!("Redis refuses with {code}{advice}")
}
