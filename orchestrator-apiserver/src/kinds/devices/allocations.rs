//! The status of a claim: which devices it has, who uses them, what their drivers say of them.

use std::collections::BTreeSet;

use orchestrator_core::status::FieldErrorKind;

use super::{claims, claims::RequestNames, driver_name, each, each_once, label, pool_name, raw, slices, too_many};
use crate::{
    field::{Errors, Field},
    kinds::{check, conditions, podspec},
};

/// Users of one claim.
pub(super) const RESERVED_FOR_MAX: usize = 256;
const RESULTS_MAX: usize = 32;
const CONDITIONS_MAX: usize = 8;
const DATA_BYTES: usize = 10 * 1024;
const ADDRESSES_MAX: usize = 16;
const INTERFACE_BYTES: usize = 256;
const HARDWARE_BYTES: usize = 128;
const UUID_BYTES: usize = 36;

/// A claim is used only while it is allocated, and its allocation does not change until it is given back.
pub(super) fn validate_status(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let is_deleted = new.at("metadata.deletionTimestamp").exists();
    let known = claims::request_names(&new.get("spec"));
    let (new, old) = (new.get("status"), old.get("status"));
    let (reserved, allocation) = (new.get("reservedFor"), new.get("allocation"));
    each_once(
        &reserved,
        RESERVED_FOR_MAX,
        |user| user.get("uid").text().to_owned(),
        errors,
        |user, errors| {
            for name in ["resource", "name", "uid"] {
                check::required(&user.get(name), errors);
            }
        },
    );
    let allocated = allocation.at("devices.results").items().iter().map(identity).collect::<BTreeSet<_>>();
    devices(&new.get("devices"), &allocated, errors);
    if reserved.len() > 0 && !allocation.exists() {
        reserved.forbidden(errors, "may not be specified when `allocated` is not set");
    } else if is_deleted && has_new_users(&reserved, &old.get("reservedFor")) {
        let detail = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
        reserved.forbidden(errors, detail);
    }
    if old.get("allocation").exists() && allocation.exists() {
        check::immutable(&new, &old, "allocation", errors);
    } else if allocation.exists() {
        allocated_devices(&allocation, &known, errors);
    }
}

fn has_new_users(new: &Field<'_>, old: &Field<'_>) -> bool {
    let known = old.items();
    !new.items().iter().all(|user| known.iter().any(|known| known.value() == user.value()))
}

/// The name of a device, or of a share of it.
fn identity(device: &Field<'_>) -> String {
    let names = ["driver", "pool", "device", "shareID"].map(|name| device.get(name).text());
    let [.., share] = names;
    names[..if share.is_empty() { 3 } else { 4 }].join("/")
}

fn allocated_devices(allocation: &Field<'_>, known: &RequestNames, errors: &mut Errors) {
    let devices = allocation.get("devices");
    each(&devices.get("results"), RESULTS_MAX, errors, |result, errors| {
        claims::reference(&result.get("request"), known, errors);
        driver_name(&result.get("driver"), errors);
        pool_name(&result.get("pool"), errors);
        label(&result.get("device"), errors);
        slices::binding_conditions(result, errors);
        share(&result.get("shareID"), errors);
    });
    // Those of the class and those of the claim.
    each(&devices.get("config"), 2 * claims::CONFIGURATIONS_MAX, errors, |config, errors| {
        let source = config.get("source");
        check::required(&source, errors);
        if !source.text().is_empty() {
            source.one_of(errors, &["FromClaim", "FromClass"]);
        }
        claims::references(&config.get("requests"), known, errors);
        claims::configuration(config, errors);
    });
    let selector = allocation.get("nodeSelector");
    if selector.exists() {
        podspec::node_selector(&selector, errors);
    }
}

/// What drivers say of devices, of which the claim must have each.
fn devices(devices: &Field<'_>, allocated: &BTreeSet<String>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for device in devices.items() {
        driver_name(&device.get("driver"), errors);
        pool_name(&device.get("pool"), errors);
        label(&device.get("device"), errors);
        share(&device.get("shareID"), errors);
        if !allocated.contains(&identity(&device)) {
            device.wrong(errors, identity(&device), "must be an allocated device in the claim");
        }
        let stated = device.get("conditions");
        too_many(&stated, CONDITIONS_MAX, errors);
        conditions::validate(&stated, errors);
        if device.get("data").exists() {
            raw(&device.get("data"), DATA_BYTES, errors);
        }
        network(&device.get("networkData"), errors);
    }
    for device in devices.items() {
        if !seen.insert(identity(&device)) {
            device.error(errors, FieldErrorKind::Duplicate, identity(&device));
        }
    }
}

fn network(data: &Field<'_>, errors: &mut Errors) {
    for (name, most) in [("interfaceName", INTERFACE_BYTES), ("hardwareAddress", HARDWARE_BYTES)] {
        if data.get(name).len() > most {
            data.get(name).error(errors, FieldErrorKind::TooLong, format!("may not be more than {most} bytes"));
        }
    }
    let key = |address: &Field<'_>| address.text().to_owned();
    each_once(&data.get("ips"), ADDRESSES_MAX, key, errors, check::interface_address);
}

/// The name of a share of a device.
fn share(share: &Field<'_>, errors: &mut Errors) {
    if !share.exists() {
        return;
    }
    let text = share.text();
    if let Some(problem) = uuid_problem(text) {
        share.invalid(errors, &format!("error validating uid: {problem}"));
    } else if text.len() != UUID_BYTES || text != text.to_lowercase() {
        let detail = "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase \
                      hexadecimal characters";
        share.invalid(errors, detail);
    }
}

/// What is wrong with a UUID, in the words of `github.com/google/uuid`.
fn uuid_problem(text: &str) -> Option<String> {
    const URN: &str = "urn:uuid:";
    let is_hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let dashed = match text.len() {
        32 => return (!is_hex(text)).then(|| "invalid UUID format".to_owned()),
        UUID_BYTES => text,
        38 => match text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
            Some(text) => text,
            None => return Some("invalid bracketed UUID format".to_owned()),
        },
        45 => match text.get(..URN.len()).filter(|urn| urn.eq_ignore_ascii_case(URN)) {
            Some(urn) => &text[urn.len()..],
            None => return Some(format!("invalid urn prefix: {:?}", text.get(..URN.len()).unwrap_or_default())),
        },
        length => return Some(format!("invalid UUID length: {length}")),
    };
    let parts = dashed.split('-').collect::<Vec<_>>();
    let is_form = parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]) && parts.iter().all(|part| is_hex(part));
    (!is_form).then(|| "invalid UUID format".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::told;

    fn status(new: Value, old: Value, deleted: bool) -> Vec<String> {
        let claim = |status: Value| {
            let metadata = if deleted { json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}) } else { json!({}) };
            let spec = json!({"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "c"}}]}});
            json!({"metadata": metadata, "spec": spec, "status": status})
        };
        let (new, old, mut errors) = (claim(new), claim(old), Errors::default());
        validate_status(&Field::root(&new), &Field::root(&old), &mut errors);
        told(errors)
    }

    fn user(name: &str) -> Value {
        json!({"resource": "pods", "name": name, "uid": name})
    }

    fn result(device: &str) -> Value {
        json!({"request": "r", "driver": "d.example.com", "pool": "p", "device": device})
    }

    #[test]
    fn claims_are_reserved_while_they_are_allocated() {
        let allocated = |users: Vec<Value>| json!({"allocation": {"devices": {}}, "reservedFor": users});
        assert_eq!(status(allocated(vec![user("a")]), json!({}), false), [""; 0]);
        assert_eq!(
            status(json!({"reservedFor": [user("a")]}), json!({}), false),
            ["status.reservedFor: may not be specified when `allocated` is not set"]
        );
        assert_eq!(
            status(allocated(vec![user("a"), user("a"), json!({"name": "b", "uid": "b"})]), json!({}), false),
            ["status.reservedFor[2].resource: ", "status.reservedFor[1]: \"a\""]
        );
        assert_eq!(status(allocated(vec![user("a")]), allocated(vec![user("a"), user("b")]), true), [""; 0]);
        assert_eq!(status(allocated(vec![user("a")]), allocated(vec![]), true).len(), 1);
        assert_eq!(
            status(allocated(vec![user("a"); RESERVED_FOR_MAX + 1]), json!({}), false)[0],
            format!("status.reservedFor: {}: must have at most {RESERVED_FOR_MAX} items", RESERVED_FOR_MAX + 1)
        );
    }

    #[test]
    fn an_allocation_stays_until_it_is_given_back() {
        let (one, two) = (json!({"allocation": {"a": 1}}), json!({"allocation": {"a": 2}}));
        assert_eq!(status(two.clone(), one.clone(), false), ["status.allocation: {\"a\":2}: field is immutable"]);
        assert_eq!(status(json!({}), one, false), [""; 0]);
        assert_eq!(status(two, json!({}), false), [""; 0]);
    }

    #[test]
    fn an_allocation_is_of_requests_of_the_claim() {
        let allocation = |results: Value| json!({"allocation": {"devices": {"results": results}}});
        assert_eq!(status(allocation(json!([result("one")])), json!({}), false), [""; 0]);
        let mut other = result("one");
        other["request"] = json!("s");
        other["shareID"] = json!("x");
        assert_eq!(
            status(allocation(json!([other])), json!({}), false),
            [
                "status.allocation.devices.results[0].request: \"s\": must be the name of a request in the claim \
                 or the name of a request and a subrequest separated by '/'",
                "status.allocation.devices.results[0].shareID: \"x\": error validating uid: invalid UUID length: 1",
            ]
        );
    }

    #[test]
    fn drivers_speak_of_devices_that_the_claim_has() {
        let status = |devices: Value| {
            let allocation = json!({"devices": {"results": [result("one")]}});
            status(json!({"allocation": allocation, "devices": devices}), json!({}), false)
        };
        let device = |device: &str| json!({"driver": "d.example.com", "pool": "p", "device": device});
        assert_eq!(status(json!([device("one")])), [""; 0]);
        assert_eq!(
            status(json!([device("two")])),
            ["status.devices[0]: d.example.com/p/two: must be an allocated device in the claim"]
        );
        assert_eq!(status(json!([device("one"), device("one")])), ["status.devices[1]: d.example.com/p/one"]);
        let mut networked = device("one");
        networked["networkData"] = json!({"ips": ["10.0.0.1", "10.0.0.1/24", "10.0.0.1/24", "2001:DB8::1/64"]});
        assert_eq!(
            status(json!([networked])),
            [
                "status.devices[0].networkData.ips[0]: \"10.0.0.1\": must be a valid address in CIDR form, (e.g. \
                 10.9.8.7/24 or 2001:db8::1/64)",
                "status.devices[0].networkData.ips[3]: \"2001:DB8::1/64\": must be in canonical form \
                 (\"2001:db8::1/64\")",
                "status.devices[0].networkData.ips[2]: \"10.0.0.1/24\"",
            ]
        );
    }

    #[test]
    fn shares_have_the_names_of_uuids() {
        assert_eq!(uuid_problem("0d2b1c5a-0000-4000-8000-0123456789ab"), None);
        assert_eq!(uuid_problem("0d2b1c5a-0000-4000-8000-0123456789ag").as_deref(), Some("invalid UUID format"));
        assert_eq!(uuid_problem("{0d2b1c5a-0000-4000-8000-0123456789ab}"), None);
        assert_eq!(uuid_problem("urn:uuid:0d2b1c5a-0000-4000-8000-0123456789ab"), None);
        assert_eq!(uuid_problem("").as_deref(), Some("invalid UUID length: 0"));
    }
}
