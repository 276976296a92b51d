use wxtokend_core::account::Endpoint;
use wxtokend_core::ticket::TicketKind;

use super::*;

const NOW: Moment = Moment { wall_ms: 1_790_000_000_000, boot_ms: 5_000_000 };

fn account() -> Arc<Account> {
    Arc::new(Account::example(Endpoint::StableToken))
}

fn wanted(account: &Arc<Account>, value: &str, promise_ms: u64) -> Option<Desired> {
    let promise = Duration::from_millis(promise_ms);
    Some(Desired { account: Arc::clone(account), value: Secret::new(value), promise })
}

fn token() -> Credential {
    Credential::token(account().appid.clone())
}

fn ticket(kind: TicketKind) -> Credential {
    Credential::ticket(account().appid.clone(), kind)
}

fn wxjava() -> Layout {
    Layout::WxJava { prefix: "wx".to_owned() }
}

/// A change as `key=value for_s`, or `-key`.
fn shown(plan: &Plan) -> Vec<String> {
    let show = |change: KeyChange<'_>| match change {
        KeyChange::Put { entry, for_s } => {
            format!("{}={} {for_s}", entry.key.expose(), entry.content.mark().expose())
        }
        KeyChange::Withdraw(entry) => format!("-{}", entry.key.expose()),
    };
    plan.changes().map(show).collect()
}

fn plan(wanted: Option<Desired>, published: Option<&Published>) -> Plan {
    Plan::new(&token(), wanted, published, &wxjava(), NOW)
}

/// What is in Redis after `wanted` was written, which took Redis a tenth of a second.
fn published(wanted: Option<Desired>) -> Published {
    plan(wanted, None).published(NOW + Duration::from_millis(100)).unwrap()
}

fn enough(is_ms: i64, promise_ms: u64) -> bool {
    let at = |ms| Moment { wall_ms: ms, boot_ms: ms };
    let whole = Duration::from_secs(Duration::from_millis(promise_ms).as_secs());
    is_enough(at(is_ms), at(0) + whole, at(0) + Duration::from_millis(promise_ms), at(0))
}

#[test]
fn keys_are_written_again_when_the_promise_shrinks_or_grows_and_not_for_its_fractions() {
    assert!(enough(100_000, 100_999));
    assert!(enough(99_500, 100_400), "half a second is not worth a write");
    assert!(!enough(100_001, 100_000), "they must not outlive the promise");
    assert!(!enough(50_000, 51_000), "it has grown by a second");
    assert!(!enough(500, 1_600), "half of their life is over");
    assert!(!enough(-5, 1_000), "they have ended");
}

#[test]
fn a_key_ends_with_the_whole_seconds_of_its_promise() {
    for (promise_ms, for_s) in [(1_000, 1), (1_999, 1), (7_199_000, 7_199), (7_199_999, 7_199)] {
        let plan = plan(wanted(&account(), "t", promise_ms), None);
        assert_eq!(shown(&plan), [format!("wx:access_token:wx0123456789abcdef=t {for_s}")]);
        let published = plan.published(NOW).unwrap();
        assert_eq!(published.until, NOW + Duration::from_secs(for_s));
    }
    let ends = Plan::new(&token(), wanted(&account(), "t", 7_000_999), None, &Layout::Wechatpy, NOW);
    assert!(shown(&ends)[1].ends_with("_expires_at=1790007000 7000"), "{:?}", shown(&ends));
}

#[test]
fn what_is_in_redis_is_left_alone_until_it_is_doubted() {
    let account = account();
    let mut published = published(wanted(&account, "t", 100_000));
    let again = |published: &Published| shown(&plan(wanted(&account, "t", 100_000), Some(published)));
    assert_eq!(again(&published), [""; 0]);
    assert!(published.stored_entries(NOW).is_some());
    published.forget();
    assert_eq!(again(&published), ["wx:access_token:wx0123456789abcdef=t 100"]);
    assert!(published.stored_entries(NOW).is_none(), "nothing is known to stand there");
}

#[test]
fn what_nobody_may_use_any_more_is_taken_back_also_when_it_may_not_have_been_written() {
    let account = account();
    let mut published = published(wanted(&account, "t", 100_000));
    assert_eq!(shown(&plan(None, Some(&published))), ["-wx:access_token:wx0123456789abcdef"]);
    published.tried(plan(wanted(&account, "u", 100_000), Some(&published)));
    let keys = shown(&plan(None, Some(&published)));
    assert_eq!(keys, ["-wx:access_token:wx0123456789abcdef"; 2], "whichever of them it is");
    assert_eq!(shown(&plan(None, None)), [""; 0]);
}

#[test]
fn a_key_that_has_another_name_now_is_taken_back() {
    let layout = Layout::EasyWeChat6 { namespace: String::new() };
    let old = account();
    let new = Arc::new(Account { secret: Secret::new("new"), ..(*old).clone() });
    let put = |account, published: Option<&Published>| {
        Plan::new(&token(), wanted(account, "t", 100_000), published, &layout, NOW)
    };
    let published = put(&old, None).published(NOW).unwrap();
    let key = |secret, stable| format!("official_account.access_token.wx0123456789abcdef.{secret}.{stable}");
    let value = "s:1:\"t\";";
    assert_eq!(
        shown(&put(&new, Some(&published))),
        [
            format!("{}={value} 100", key("new", 0)),
            format!("{}={value} 100", key("new", 1)),
            format!("-{}", key("app-secret", 0)),
            format!("-{}", key("app-secret", 1)),
        ]
    );
}

#[test]
fn a_key_may_stay_as_long_as_it_was_given_or_its_token_is_promised_and_no_longer() {
    let account = account();
    let published = published(wanted(&account, "t", 100_000));
    let at_most = |wanted: Option<Desired>| published.at_most(wanted.as_ref(), NOW).as_millis();
    assert_eq!(at_most(wanted(&account, "t", 50_000)), 101_100);
    assert_eq!(at_most(wanted(&account, "t", 200_000)), 201_000);
    assert_eq!(at_most(wanted(&account, "u", 200_000)), 101_100, "that is another's promise");
    assert_eq!(at_most(None), 101_100);
}

#[test]
fn a_ticket_has_keys_of_its_own_where_the_sdk_shares_it() {
    let plan = |kind, layout: &Layout| {
        Plan::new(&ticket(kind), wanted(&account(), "tick", 100_000), None, layout, NOW)
    };
    assert_eq!(
        shown(&plan(TicketKind::WxCard, &wxjava())),
        ["wx:ticket:key:wx0123456789abcdef:wx_card=tick 100"]
    );
    let none = plan(TicketKind::WxCard, &Layout::Silenceper);
    assert_eq!(shown(&none), [""; 0]);
    assert!(none.published(NOW).is_none(), "nor is it looked at again");
}
