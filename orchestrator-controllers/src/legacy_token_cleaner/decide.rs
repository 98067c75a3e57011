//! Whether a token that was made for a service account in earlier days is still needed.
//!
//! Upstream:
//! <https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#legacy-serviceaccount-token-cleaner>.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use orchestrator_core::meta;

use crate::limits::LEGACY_TOKEN_TIME;

/// Since when it is known which tokens are used: its namespace, its name and the key in it.
pub(super) const TRACKING: (&str, &str, &str) =
    ("kube-system", "kube-apiserver-legacy-service-account-token-tracking", "since");
/// On a token: since when it is not accepted any longer.
pub(super) const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

/// What to do about a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It stays as it is.
    Keep,
    /// It is no longer accepted, from this day on.
    Invalidate(String),
    /// It goes.
    Delete,
}

fn before(now: Timestamp) -> Timestamp {
    let time = SignedDuration::try_from(LEGACY_TOKEN_TIME).unwrap_or(SignedDuration::MAX);
    now.saturating_sub(time).unwrap_or(Timestamp::MIN)
}

/// A day, as labels have it.
fn day(time: Timestamp) -> Date {
    time.to_zoned(TimeZone::UTC).date()
}

/// Whether uses have been written down for so long that a token without any was not used.
pub(super) fn knows_enough(since: &str, now: Timestamp) -> bool {
    let Ok(since) = since.parse::<Date>() else { return false };
    // The day itself may have been a part of one only.
    since.tomorrow().is_ok_and(|first| day(before(now)) >= first)
}

/// The name of the account that a token was made for.
pub(super) fn account_of(secret: &Secret) -> Option<&str> {
    let is_token = secret.type_.as_deref() == Some("kubernetes.io/service-account-token");
    meta::annotation(&secret.metadata, ACCOUNT).filter(|name| is_token && !name.is_empty())
}

/// What to do about a token of an account, beside the secrets that pods of its namespace use.
pub(super) fn decide(
    secret: &Secret,
    account: Option<&ServiceAccount>,
    used: &BTreeSet<String>,
    now: Timestamp,
) -> Decision {
    let metadata = &secret.metadata;
    let created = metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    if created >= before(now) || meta::is_deleting(metadata) {
        return Decision::Keep;
    }
    let kept_from = day(before(now));
    let date = |label: &str| meta::label(metadata, label).map(str::parse::<Date>);
    match date(LAST_USED) {
        Some(Err(_)) => return Decision::Keep,
        Some(Ok(last_used)) if last_used >= kept_from => return Decision::Keep,
        _ => {}
    }
    let name = meta::name(metadata);
    let made_by_itself = account.is_some_and(|account| {
        let uid = meta::annotation(metadata, ACCOUNT_UID).filter(|uid| !uid.is_empty());
        let names = account.secrets.iter().flatten().filter_map(|it| it.name.as_deref());
        uid.is_none_or(|uid| uid == meta::uid(&account.metadata)) && names.into_iter().any(|known| known == name)
    });
    if !made_by_itself || used.contains(name) {
        return Decision::Keep;
    }
    match date(INVALID_SINCE) {
        Some(Ok(since)) if since >= kept_from => Decision::Keep,
        Some(Ok(_)) => Decision::Delete,
        _ => Decision::Invalidate(day(now).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::pods::fixtures::at;

    const DAY: i64 = 24 * 3600;

    fn token(labels: Value) -> Secret {
        let annotations = json!({ACCOUNT: "a", ACCOUNT_UID: "u"});
        let created = at(0).to_string();
        let metadata = json!({"name": "t", "annotations": annotations, "labels": labels, "creationTimestamp": created});
        serde_json::from_value(json!({"metadata": metadata, "type": "kubernetes.io/service-account-token"})).unwrap()
    }

    fn account() -> ServiceAccount {
        serde_json::from_value(json!({"metadata": {"name": "a", "uid": "u"}, "secrets": [{"name": "t"}]})).unwrap()
    }

    fn on(secret: &Secret, days: i64) -> Decision {
        decide(secret, Some(&account()), &BTreeSet::new(), at(days * DAY))
    }

    #[test]
    fn a_token_is_invalid_for_a_year_before_it_goes() {
        let unused = token(json!({}));
        assert_eq!(account_of(&unused), Some("a"));
        assert_eq!(on(&unused, 364), Decision::Keep);
        assert_eq!(on(&unused, 366), Decision::Invalidate("2027-01-02".to_owned()));
        let invalid = token(json!({INVALID_SINCE: "2027-01-02"}));
        assert_eq!(on(&invalid, 366 + 365), Decision::Keep);
        assert_eq!(on(&invalid, 366 + 366), Decision::Delete);
        let used = token(json!({LAST_USED: "2026-12-31"}));
        assert_eq!(on(&used, 366), Decision::Keep);
        assert_eq!(on(&token(json!({LAST_USED: "lately"})), 999), Decision::Keep);
    }

    #[test]
    fn only_tokens_that_made_themselves_and_are_in_no_pod_go() {
        let unused = token(json!({}));
        let now = at(999 * DAY);
        assert_eq!(decide(&unused, None, &BTreeSet::new(), now), Decision::Keep);
        assert_eq!(decide(&unused, Some(&account()), &BTreeSet::from(["t".to_owned()]), now), Decision::Keep);
        let stranger = ServiceAccount { secrets: None, ..account() };
        assert_eq!(decide(&unused, Some(&stranger), &BTreeSet::new(), now), Decision::Keep);
    }

    #[test]
    fn uses_have_to_be_known_for_a_year() {
        assert!(!knows_enough("2026-01-01", at(365 * DAY)));
        assert!(knows_enough("2026-01-01", at(366 * DAY)));
        assert!(!knows_enough("some day", at(999 * DAY)));
    }

    proptest! {
        #[test]
        fn nothing_goes_that_was_used_within_a_year(used in 0..1000_i64, now in 0..1000_i64) {
            let label = day(at(used * DAY)).to_string();
            let token = token(json!({LAST_USED: label, INVALID_SINCE: "2026-01-01"}));
            prop_assert!(now - used > 365 || on(&token, now) == Decision::Keep);
        }
    }
}
