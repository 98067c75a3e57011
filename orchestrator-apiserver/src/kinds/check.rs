//! Rules that many kinds share: numbers, names, addresses, selectors, percentages.
//!
//! Upstream: `k8s.io/apimachinery/pkg/util/validation`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use orchestrator_core::{quantity::Quantity, status::FieldErrorKind};
use serde_json::Value;

use crate::{
    field::{Errors, Field},
    names,
};

/// The object as a whole, as errors name it that mean no field of it.
pub(crate) const WHOLE: &str = "[]";
pub(crate) const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
pub(crate) const IMMUTABLE: &str = "field is immutable";
/// Size of all annotations of an object, in bytes; upstream's limit.
const ANNOTATIONS_BYTES: usize = 256 << 10;
const NOT_AN_ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const NOT_A_NETWORK: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// Refuses a number that is given and outside of a range.
pub(crate) fn in_range(field: &Field<'_>, low: i64, high: i64, errors: &mut Errors) {
    if field.int().is_some_and(|number| number < low || number > high) {
        field.invalid(errors, &format!("must be between {low} and {high}, inclusive"));
    }
}

/// Refuses the number of a port, given or not.
pub(crate) fn port_number(field: &Field<'_>, errors: &mut Errors) {
    let number = field.int().unwrap_or(0);
    if !(1..=65535).contains(&number) {
        field.wrong(errors, number, "must be between 1 and 65535, inclusive");
    }
}

/// What is wrong with the name of a port.
pub(crate) fn port_name_problems(name: &str) -> Vec<&'static str> {
    let mut problems = Vec::new();
    if name.len() > 15 {
        problems.push("must be no more than 15 characters");
    }
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || !name.bytes().all(known) {
        problems.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
    }
    if !name.bytes().any(|byte| byte.is_ascii_lowercase()) {
        problems.push("must contain at least one letter (a-z)");
    }
    if name.contains("--") {
        problems.push("must not contain consecutive hyphens");
    }
    if name.starts_with('-') || name.ends_with('-') {
        problems.push("must not begin or end with a hyphen");
    }
    problems
}

/// A port by its number or by its name.
pub(crate) fn port_or_name(field: &Field<'_>, errors: &mut Errors) {
    match field.value() {
        Some(Value::String(name)) => {
            for problem in port_name_problems(name) {
                field.invalid(errors, problem);
            }
        }
        _ => port_number(field, errors),
    }
}

/// Refuses each thing that is wrong with a text.
pub(crate) fn problems(field: &Field<'_>, problems: &[String], errors: &mut Errors) {
    for problem in problems {
        field.invalid(errors, problem);
    }
}

/// Refuses all that is wrong with a text at once.
pub(crate) fn at_once(field: &Field<'_>, problems: &[String], errors: &mut Errors) {
    if !problems.is_empty() {
        field.invalid(errors, &problems.join(","));
    }
}

/// Refuses the name of a kind that breaks the rules of DNS labels, but for its upper case.
pub(crate) fn mixed_case(name: &Field<'_>, errors: &mut Errors) {
    let problems = names::label_1035(&name.text().to_lowercase());
    if !name.text().is_empty() && !problems.is_empty() {
        name.invalid(errors, &format!("may have mixed case, but should otherwise match: {}", problems.join(",")));
    }
}

/// Refuses a text that is given and breaks a rule of names.
pub(crate) fn given(field: &Field<'_>, rule: fn(&str) -> Vec<String>, errors: &mut Errors) {
    if !field.text().is_empty() {
        problems(field, &rule(field.text()), errors);
    }
}

/// Refuses a text that is missing or breaks a rule of names.
pub(crate) fn needed(field: &Field<'_>, rule: fn(&str) -> Vec<String>, errors: &mut Errors) {
    if field.text().is_empty() {
        field.required(errors, "");
    } else {
        problems(field, &rule(field.text()), errors);
    }
}

/// Refuses a text that is missing.
pub(crate) fn required(field: &Field<'_>, errors: &mut Errors) {
    if field.text().is_empty() {
        field.required(errors, "");
    }
}

/// Refuses a list without items.
pub(crate) fn required_list(field: &Field<'_>, errors: &mut Errors) {
    if field.len() == 0 {
        field.required(errors, "");
    }
}

/// The keys of labels, of which a missing one is a wrong one.
pub(crate) fn label_key(field: &Field<'_>, errors: &mut Errors) {
    problems(field, &names::qualified_name(field.text()), errors);
}

/// An address as it is written canonically enough for the API: no leading zeros.
pub(crate) fn parse_ip(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

/// Refuses what is no address, and what others could read as another one. Upstream: `IsValidIPForLegacyField`.
pub(crate) fn ip(field: &Field<'_>, errors: &mut Errors) {
    if let Some(problem) = address_problem(field.text()) {
        field.invalid(errors, problem);
    }
}

/// What is wrong with an address.
pub(crate) fn address_problem(text: &str) -> Option<&'static str> {
    match parse_ip(text) {
        Some(address) if is_mapped(address) => Some("must not be an IPv4-mapped IPv6 address"),
        Some(_) => None,
        None if parse_ip(&without_zeros(text)).is_some() => Some("must not have leading 0s"),
        None => Some(NOT_AN_ADDRESS),
    }
}

/// Whether an address of the newer protocol stands for one of the older.
fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some())
}

/// An address whose numbers between dots have no zeros in front.
fn without_zeros(text: &str) -> String {
    let (start, numbers) = text.rsplit_once(':').map_or(("", text), |(start, _)| text.split_at(start.len() + 1));
    let plain = |number: &str| match number.trim_start_matches('0') {
        "" if !number.is_empty() => "0".to_owned(),
        rest => rest.to_owned(),
    };
    if !numbers.contains('.') {
        return text.to_owned();
    }
    format!("{start}{}", numbers.split('.').map(plain).collect::<Vec<_>>().join("."))
}

/// The address and the length of the prefix of a network.
pub(crate) fn parse_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = text.split_once('/')?;
    let address = parse_ip(address)?;
    let is_number = !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit());
    let bits: u8 = bits.parse().ok().filter(|_| is_number)?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    (bits <= most).then_some((address, bits))
}

/// Refuses what is no network, and what others could read as another one. Upstream: `IsValidCIDRForLegacyField`.
pub(crate) fn cidr(field: &Field<'_>, errors: &mut Errors) {
    if let Some(problem) = network_problem(field.text()) {
        field.invalid(errors, problem);
    }
}

/// What is wrong with a network.
pub(crate) fn network_problem(text: &str) -> Option<&'static str> {
    const ZEROS: &str = "must not have leading 0s in IP or prefix length";
    let (address, bits) = text.split_once('/').unwrap_or((text, ""));
    let Some(network) = parse_cidr(&format!("{}/{bits}", without_zeros(address))) else { return Some(NOT_A_NETWORK) };
    if parse_ip(address).is_none() || (bits.len() > 1 && bits.starts_with('0')) {
        Some(ZEROS)
    } else if is_mapped(network.0) {
        Some("must not have an IPv4-mapped IPv6 address")
    } else if first_address(network) != network.0 {
        Some("must not have bits set beyond the prefix length")
    } else {
        None
    }
}

/// Refuses a network that is not written in the one form that fields since then ask for.
pub(crate) fn canonical_cidr(field: &Field<'_>, errors: &mut Errors) {
    cidr(field, errors);
    let form = parse_cidr(field.text()).map(|(address, bits)| format!("{address}/{bits}"));
    if let Some(form) = form.filter(|form| network_problem(field.text()).is_none() && form != field.text()) {
        field.invalid(errors, &format!("must be in canonical form ({form:?})"));
    }
}

/// Refuses what is not an address with the bits of its network, in its one form. Upstream: `IsValidInterfaceAddress`.
pub(crate) fn interface_address(field: &Field<'_>, errors: &mut Errors) {
    let (address, bits) = field.text().split_once('/').unwrap_or((field.text(), ""));
    let Some((address, bits)) = parse_cidr(&format!("{}/{bits}", without_zeros(address))) else {
        return field.invalid(errors, "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)");
    };
    let form = match address {
        IpAddr::V6(mapped) if is_mapped(address) && bits >= 96 => {
            format!("{}/{}", mapped.to_canonical(), bits - 96)
        }
        address => format!("{address}/{bits}"),
    };
    if form != field.text() {
        field.invalid(errors, &format!("must be in canonical form ({form:?})"));
    }
}

/// The address that a network begins with.
fn first_address((address, bits): (IpAddr, u8)) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from(u32::from(address) & mask(bits, 32) as u32).into(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & mask(bits, 128)).into(),
    }
}

/// The bits of a prefix, of addresses of this many bits.
fn mask(bits: u8, width: u32) -> u128 {
    u128::MAX.checked_shl(width - u32::from(bits)).unwrap_or(0)
}

/// Whether an address lies in a network.
pub(crate) fn contains(network: (IpAddr, u8), address: IpAddr) -> bool {
    network.0.is_ipv4() == address.is_ipv4() && first_address(network) == first_address((address, network.1))
}

/// Refuses addresses that can belong to no endpoint.
pub(crate) fn endpoint_address(field: &Field<'_>, errors: &mut Errors) {
    let Some(address) = parse_ip(field.text()) else { return };
    let (any, loopback) = (address.is_unspecified(), address.is_loopback());
    let (link_local, link_multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == Ipv4Addr::new(224, 0, 0, 0).octets()[..3]),
        IpAddr::V6(v6) => (is_v6_link_local(v6), v6.segments()[0] & 0xff0f == 0xff02),
    };
    for (bad, detail) in [
        (any, format!("may not be unspecified ({})", field.text())),
        (loopback, "may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned()),
        (link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned()),
        (link_multicast, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned()),
    ] {
        if bad {
            field.invalid(errors, &detail);
        }
    }
}

/// Whether an address can be one machine's, for others to reach: no machine itself, and nothing that only it reaches. What
/// upstream calls `IsProxyableIP`.
pub(crate) fn is_reachable(address: &IpAddr) -> bool {
    // An address of one family may be written as one of the other.
    let address = address.to_canonical();
    let is_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => is_v6_link_local(address),
    };
    !(is_local || address.is_unspecified() || address.is_loopback() || address.is_multicast())
}

fn is_v6_link_local(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}

/// The amount of a field; nothing where it is none.
pub(crate) fn quantity(field: &Field<'_>) -> Option<Quantity> {
    field.text().parse().ok()
}

/// Refuses an amount below zero.
pub(crate) fn quantity_not_negative(field: &Field<'_>, errors: &mut Errors) {
    if quantity(field).is_some_and(|quantity| quantity < Quantity::ZERO) {
        field.invalid(errors, NOT_NEGATIVE);
    }
}

/// Refuses an amount that is not above zero.
pub(crate) fn quantity_positive(field: &Field<'_>, errors: &mut Errors) {
    if quantity(field).is_some_and(|quantity| quantity <= Quantity::ZERO) {
        field.invalid(errors, "must be greater than zero");
    }
}

/// The rules of a map of labels.
pub(crate) fn labels(map: &Field<'_>, errors: &mut Errors) {
    for (key, value) in map.entries() {
        if errors.is_full() {
            return;
        }
        for problem in names::qualified_name(key) {
            errors.add(map.path(), FieldErrorKind::Invalid, format!("{key:?}: {problem}"));
        }
        for problem in names::label_value(value.text()) {
            errors.add(map.path(), FieldErrorKind::Invalid, format!("{:?}: {problem}", value.text()));
        }
    }
}

/// The rules of a map of annotations, whose keys may be in any case.
pub(crate) fn annotations(map: &Field<'_>, errors: &mut Errors) {
    let mut size = 0;
    for (key, value) in map.entries() {
        for problem in names::qualified_name(&key.to_lowercase()) {
            errors.add(map.path(), FieldErrorKind::Invalid, format!("{key:?}: {problem}"));
        }
        size += key.len() + value.text().len();
    }
    if size > ANNOTATIONS_BYTES {
        let detail = format!("may not be more than {ANNOTATIONS_BYTES} bytes");
        errors.add(map.path(), FieldErrorKind::TooLong, detail);
    }
}

/// The rules of a label selector. Nothing is refused where there is none.
pub(crate) fn label_selector(selector: &Field<'_>, errors: &mut Errors) {
    labels(&selector.get("matchLabels"), errors);
    for expression in selector.get("matchExpressions").items() {
        let values = expression.get("values");
        match expression.get("operator").text() {
            "In" | "NotIn" if values.len() == 0 => {
                values.required(errors, "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if values.len() > 0 => {
                values.forbidden(errors, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => expression.get("operator").invalid(errors, "not a valid selector operator"),
        }
        label_key(&expression.get("key"), errors);
        for value in values.items() {
            problems(&value, &names::label_value(value.text()), errors);
        }
    }
}

/// The rules of a label selector. Tells whether it keeps them.
pub(crate) fn valid_label_selector(selector: &Field<'_>, errors: &mut Errors) -> bool {
    let mut own = Errors::default();
    label_selector(selector, &mut own);
    let valid = own.is_empty();
    errors.extend(own);
    valid
}

/// Whether a selector says nothing.
pub(crate) fn is_empty_selector(selector: &Field<'_>) -> bool {
    selector.get("matchLabels").len() + selector.get("matchExpressions").len() == 0
}

/// Whether a valid label selector selects labels. One that says nothing selects everything.
pub(crate) fn selects(selector: &Field<'_>, labels: &Field<'_>) -> bool {
    let label = |key: &str| labels.value().and_then(|labels| labels.get(key)).and_then(Value::as_str);
    let equal = selector.get("matchLabels").entries().iter().all(|(key, value)| label(key) == Some(value.text()));
    equal
        && selector.get("matchExpressions").items().iter().all(|expression| {
            let label = label(expression.get("key").text());
            let listed = || expression.get("values").items().iter().any(|value| label == Some(value.text()));
            match expression.get("operator").text() {
                "In" => listed(),
                "NotIn" => !listed(),
                "Exists" => label.is_some(),
                "DoesNotExist" => label.is_none(),
                _ => false,
            }
        })
}

/// Refuses a template whose pods a workload would not select: no selector selects nothing, and an empty one everything.
pub(crate) fn selects_template(spec: &Field<'_>, errors: &mut Errors) {
    let (selector, labels) = (spec.get("selector"), spec.at("template.metadata.labels"));
    if !selector.exists() || !selects(&selector, &labels) {
        not_selected(&labels, errors);
    }
}

/// Refuses labels that a selector does not match.
pub(crate) fn not_selected(labels: &Field<'_>, errors: &mut Errors) {
    let shown = labels.value().map_or_else(|| "null".to_owned(), Value::to_string);
    labels.wrong(errors, shown, "`selector` does not match template `labels`");
}

/// What is wrong with a key of a config map or a secret.
pub(crate) fn config_key(key: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if key.len() > 253 {
        problems.push("must be no more than 253 bytes".to_owned());
    }
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if key.is_empty() || !key.bytes().all(known) {
        problems.push(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or \
             'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
                .to_owned(),
        );
    }
    match key {
        "." => problems.push("must not be '.'".to_owned()),
        ".." => problems.push("must not be '..'".to_owned()),
        _ if key.starts_with("..") => problems.push("must not start with '..'".to_owned()),
        _ => {}
    }
    problems
}

/// What is wrong with the name of an environment variable.
pub(crate) fn variable_name(name: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if name.is_empty() {
        problems.push("environment variable name must be non-empty".to_owned());
    }
    if !name.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=') {
        problems.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_owned(),
        );
    }
    problems
}

/// A path that leads down from where it is looked up.
pub(crate) fn descending_path(field: &Field<'_>, errors: &mut Errors) {
    if field.text().starts_with('/') {
        field.invalid(errors, "must be a relative path");
    }
    no_backsteps(field, errors);
}

/// Refuses paths that go up.
pub(crate) fn no_backsteps(field: &Field<'_>, errors: &mut Errors) {
    if field.text().split('/').any(|part| part == "..") {
        field.invalid(errors, "must not contain '..'");
    }
}

/// A path under a domain, as names of implementations are.
pub(crate) fn domain_prefixed_path(field: &Field<'_>, errors: &mut Errors) {
    let parts = field.text().split_once('/');
    let Some((domain, path)) = parts.filter(|(domain, path)| !domain.is_empty() && !path.is_empty()) else {
        return field.invalid(errors, "must be a domain-prefixed path (such as \"acme.io/foo\")");
    };
    for problem in names::subdomain(domain) {
        field.wrong(errors, format!("{domain:?}"), &problem);
    }
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte);
    if !path.bytes().all(known) {
        let detail = r"Invalid path (regex used for validation is '[A-Za-z0-9/\-._~%!$&'()*+,;=:]+')";
        field.wrong(errors, format!("{path:?}"), detail);
    }
}

/// A text that is missing or cannot be a part of a path.
pub(crate) fn path_part(field: &Field<'_>, errors: &mut Errors) {
    needed(field, names::path_segment, errors);
}

/// The mode of a file.
pub(crate) fn file_mode(field: &Field<'_>, errors: &mut Errors) {
    if field.int().is_some_and(|mode| !(0..=0o777).contains(&mode)) {
        field.invalid(errors, "must be a number between 0 and 0777 (octal), both inclusive");
    }
}

/// The number before the percent sign.
pub(crate) fn percent(text: &str) -> Option<i64> {
    let digits = text.strip_suffix('%')?;
    let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| digits.parse().unwrap_or(i64::MAX))
}

/// A number of things, or a percentage of all.
pub(crate) fn number_or_percent(field: &Field<'_>, errors: &mut Errors) {
    match field.value() {
        Some(Value::String(text)) if percent(text).is_none() => field.invalid(
            errors,
            "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex \
             used for validation is '[0-9]+%')",
        ),
        Some(Value::Number(_)) => field.not_negative(errors),
        _ => {}
    }
}

/// Refuses more than all.
pub(crate) fn at_most_all(field: &Field<'_>, errors: &mut Errors) {
    if percent(field.text()).is_some_and(|percent| percent > 100) {
        field.invalid(errors, "must not be greater than 100%");
    }
}

/// Whether a number or percentage is nothing. To Go a text that is neither is nothing.
pub(crate) fn is_zero(field: &Field<'_>) -> bool {
    match field.value() {
        Some(Value::String(text)) => percent(text).or_else(|| text.parse().ok()).unwrap_or(0) == 0,
        Some(Value::Number(number)) => number.as_i64() == Some(0),
        _ => true,
    }
}

/// Refuses a change, and shows the new value as a whole.
pub(crate) fn immutable(new: &Field<'_>, old: &Field<'_>, name: &str, errors: &mut Errors) {
    let (new, old) = (new.get(name), old.get(name));
    if new.value().unwrap_or(&Value::Null) != old.value().unwrap_or(&Value::Null) {
        let shown = new.value().map_or_else(|| "null".to_owned(), Value::to_string);
        new.wrong(errors, shown, IMMUTABLE);
    }
}

/// A key of labels that an error names at another place.
pub(crate) fn label_key_at(place: &Field<'_>, key: &str, errors: &mut Errors) {
    for problem in names::qualified_name(key) {
        place.wrong(errors, format!("{key:?}"), &problem);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_by_all_alike() {
        for (text, problem) in [
            ("10.9.8.7", None),
            ("FE80:0:0:0:0:0:0:0abc", None),
            ("1.2.3", Some(NOT_AN_ADDRESS)),
            ("10.0.0.256", Some(NOT_AN_ADDRESS)),
            ("010.002.003.004", Some("must not have leading 0s")),
            ("::ffff:1.2.03.4", Some("must not have leading 0s")),
            ("::ffff:1.2.3.4", Some("must not be an IPv4-mapped IPv6 address")),
        ] {
            assert_eq!(address_problem(text), problem, "{text}");
        }
    }

    #[test]
    fn networks_are_read_by_all_alike() {
        const ZEROS: Option<&str> = Some("must not have leading 0s in IP or prefix length");
        for (text, problem) in [
            ("10.0.0.0/8", None),
            ("0.0.0.0/0", None),
            ("2001:db8::/64", None),
            ("10.0.0.0", Some(NOT_A_NETWORK)),
            ("10.0.0.0/+8", Some(NOT_A_NETWORK)),
            ("10.0.0.0/33", Some(NOT_A_NETWORK)),
            ("10.0.0.0/08", ZEROS),
            ("010.0.0.0/8", ZEROS),
            ("::ffff:10.0.0.0/104", Some("must not have an IPv4-mapped IPv6 address")),
            ("10.1.2.3/8", Some("must not have bits set beyond the prefix length")),
        ] {
            assert_eq!(network_problem(text), problem, "{text}");
        }
        let text = serde_json::json!("2001:DB8::/64");
        let mut errors = Errors::default();
        canonical_cidr(&Field::root(&text), &mut errors);
        let told = errors.into_vec().remove(0).detail;
        assert_eq!(told, "\"2001:DB8::/64\": must be in canonical form (\"2001:db8::/64\")");
    }
}
