//! What expressions mean, and that none takes too long.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn device() -> View {
    let device = json!({
        "name": "gpu-0",
        "attributes": {
            "model": {"string": "a100"}, "cores": {"int": 108}, "healthy": {"bool": true},
            "driverVersion": {"version": "1.12.3-rc.1"}, "other.example.com/rack": {"string": "r1"},
        },
        "capacity": {"memory": {"value": "40Gi"}},
    });
    View::of(&serde_json::from_value(device).unwrap(), "gpu.example.com")
}

fn selects(text: &str) -> Result<bool, SelectorError> {
    Selector::compile(text).unwrap_or_else(|error| panic!("{text}: {error}")).selects(&device(), &mut 10_000_000)
}

fn error(text: &str) -> String {
    match selects(text) {
        Err(SelectorError::Failed(message)) => message,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn devices_are_selected_by_all_that_they_say() {
    for text in [
        r#"device.driver == "gpu.example.com""#,
        r#"device.attributes["gpu.example.com"].model == "a100""#,
        r#"device.attributes["gpu.example.com"].cores >= 100 && device.attributes["gpu.example.com"].healthy"#,
        r#"device.attributes["other.example.com"].rack in ["r0", "r1"]"#,
        r#"device.capacity["gpu.example.com"].memory.compareTo(quantity("40Gi")) >= 0"#,
        r#"device.capacity["gpu.example.com"].memory.isGreaterThan(quantity("39Gi"))"#,
        r#"device.attributes["gpu.example.com"].driverVersion.isLessThan(semver("1.12.3"))"#,
        r#"device.attributes["gpu.example.com"].driverVersion.compareTo(semver("v1.2", true)) > 0"#,
        r#"device.attributes["gpu.example.com"].driverVersion.minor() == 12"#,
        r#"!has(device.attributes["gpu.example.com"].absent)"#,
        r#"!("no.example.com" in device.attributes) && "gpu.example.com" in device.attributes"#,
        r#"device.attributes["no.example.com"].size() == 0"#,
        r#"device.attributes[?"gpu.example.com"].?absent.orValue("x") == "x""#,
        r#"device.attributes["gpu.example.com"].?model.optMap(m, m.startsWith("a")).orValue(false)"#,
        r#"cel.bind(dra, device.attributes["gpu.example.com"], dra.healthy && dra.cores == 108)"#,
        r#"device.attributes["gpu.example.com"].model.matches("^a[0-9]+$")"#,
        r#"["a100", "h100"].exists(m, m == device.attributes["gpu.example.com"].model)"#,
        r#"device.attributes.all(domain, domain.endsWith(".example.com"))"#,
        "device.allowMultipleAllocations == false",
    ] {
        assert_eq!(selects(text), Ok(true), "{text}");
    }
}

#[test]
fn the_language_is_whole() {
    for text in [
        "1 + 2 * 3 == 7 && 7 / 2 == 3 && -7 % 3 == -1 && 1.5 * 2.0 == 3.0 && 5u - 2u == 3u",
        "1 == 1.0 && 1u == 1 && 1 != 2 && !(1 == '1')",
        "'a' + 'b' == 'ab' && [1] + [2] == [1, 2] && b'a' < b'b'",
        "true || 1 / 0 == 0",
        "1 / 0 == 0 || true",
        "!(false && 1 / 0 == 0)",
        "[1, 2, 3].all(x, x > 0) && [1, 2].exists_one(x, x == 1) && [1, 2, 3].filter(x, x > 1) == [2, 3]",
        "[1, 2].map(x, x * 2) == [2, 4] && [1, 2].map(x, x > 1, x * 2) == [4]",
        "[1, 0].exists(x, 1 / x == 1)",
        "{'a': 1}['a'] == 1 && {'a': 1}.a == 1 && {1: 'x'}[1u] == 'x' && size({'a': 1, 'b': 2}) == 2",
        "[1, 2].all(i, v, v == i + 1) && {'a': 1}.exists(k, v, k == 'a' && v == 1)",
        "[1, 2].transformList(i, v, i * v) == [0, 2]",
        "[?optional.none(), ?optional.of(1)] == [1] && {?'a': optional.none()} == {}",
        "int('7') == 7 && string(7) == '7' && double(1) == 1.0 && uint(3.7) == 3u && bool('true')",
        "type(1) == int && type('a') == string && type(type(1)) == type",
        "'tacocat'.substring(4) == 'cat' && 'tacocat'.indexOf('co') == 2 && 'a,b'.split(',') == ['a', 'b']",
        "'abc'.split('', 2) == ['a', 'bc'] && 'aXbX'.replace('X', '-', 1) == 'a-bX' && ' x '.trim() == 'x'",
        "['a', 'b'].join('-') == 'a-b' && 'Abc'.lowerAscii() == 'abc' && 'abc'.charAt(1) == 'b'",
        "'abc 123'.find('[0-9]+') == '123' && '1 2 3'.findAll('[0-9]', 2) == ['1', '2']",
        "[1, 2].isSorted() && [1, 2].sum() == 3 && [3, 1].min() == 1 && [3, 1].max() == 3 && [1, 2, 1].lastIndexOf(1) == 2",
        "sets.contains([1, 2], [1]) && sets.equivalent([1, 1], [1]) && sets.intersects([1, 2], [2, 3])",
        "quantity('1Gi').add(quantity('1Gi')) == quantity('2Gi') && quantity('2').sub(1).asInteger() == 1",
        "isQuantity('1.5Gi') && !isQuantity('x') && !quantity('1500m').isInteger() && quantity('-1').sign() == -1",
        "isSemver('1.2.3') && !isSemver('1.2') && isSemver('v01.2', true) && semver('1.2.3+a') == semver('1.2.3+b')",
        "(1 < 2 ? 'a' : 'b') == 'a' && 'é'.size() == 1 && optional.ofNonZeroValue(0).hasValue() == false",
        "optional.of(1).or(optional.of(2)).value() == 1 && optional.of({'a': 1}).a.value() == 1",
    ] {
        assert_eq!(selects(text), Ok(true), "{text}");
    }
}

#[test]
fn errors_are_upstreams() {
    assert_eq!(
        error(r#"device.attributes["gpu.example.com"].absent == 1"#),
        "no such key: absent. Consider using CEL optional chaining (?), has() macro, or orValue() for optional fields"
    );
    assert_eq!(error("1 / 0 == 1"), "division by zero");
    assert_eq!(error("[1][1] == 1"), "index out of bounds: 1");
    assert_eq!(error("9223372036854775807 + 1 == 0"), "integer overflow");
    assert_eq!(error("device.driver > 1"), "no such overload");
    assert_eq!(error("device.driver"), "CEL result of type string could not be converted to bool");
    assert_eq!(Selector::compile("1").unwrap_err(), "must evaluate to bool or the unknown type, not int");
    let odd = json!({"name": "x", "attributes": {"v": {"version": "1"}}, "capacity": {}});
    let odd = View::of(&serde_json::from_value(odd).unwrap(), "d");
    let failed = Selector::compile("true").unwrap().selects(&odd, &mut 100).unwrap_err();
    assert!(matches!(failed, SelectorError::Failed(text) if text.starts_with("attribute v: parse semantic version:")));
}

#[test]
fn no_expression_takes_longer_than_it_may() {
    let limit = "operation cancelled: actual cost limit exceeded";
    let list = format!("[{}]", vec!["1"; 300].join(","));
    assert_eq!(error(&format!("{list}.all(a, {list}.all(b, {list}.all(c, {list}.all(d, true))))")), limit);
    let doubled = |value: &str, operation: &str| {
        let binds: String =
            (0..60).map(|at| format!("cel.bind(x{}, {operation}, ", at + 1).replace('@', &at.to_string())).collect();
        format!("cel.bind(x0, {value}, {binds}x60 == x60{}", ")".repeat(61))
    };
    assert_eq!(error(&doubled("'aaaaaaaaaa'", "x@ + x@")), limit);
    assert_eq!(error(&doubled("[1]", "[x@, x@]")), limit);
    assert_eq!(error(&doubled("'aaaaaaaaaa'", "x@.replace('a', x@)")), limit);
    let numbers = (0..300).map(|number| number.to_string()).collect::<Vec<_>>().join(",");
    assert_eq!(error(&format!("[{numbers}].exists(x, ''.matches('(a|b)' + string(x)))")), limit);
    let with_long = |expression: &str| {
        let binds: String = (0..16).map(|at| format!("cel.bind(x{}, x{at} + x{at}, ", at + 1)).collect();
        format!("cel.bind(x0, 'aaaaaaaaaa', {binds}{expression}{}", ")".repeat(17))
    };
    assert_eq!(error(&with_long(&format!("[{numbers}].all(i, {{x16: 1, x16 + 'b': 2}}.size() == 2)"))), limit);
    assert_eq!(error(&with_long(&format!("[{numbers}].map(i, x16.findAll('a')).size() > 0"))), limit);
    assert_eq!(error(&with_long(&format!("[{numbers}].map(i, x16).isSorted()"))), limit);
    assert!(error(&with_long("'a'.matches(x16)")).starts_with("error parsing regexp"));
    assert!(Selector::compile(&format!("'{}' == ''", "a".repeat(EXPRESSION_BYTES))).is_err());
    let mut steps = 10;
    let spent = Selector::compile(&format!("{list}.all(a, true)")).unwrap().selects(&device(), &mut steps);
    assert_eq!((spent, steps), (Err(SelectorError::Spent), 0));
    assert!(error("'a'.matches('(((a{99}){99}){99})')").starts_with("error parsing regexp"));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,60}") {
        let _ = Selector::compile(&text);
    }

    #[test]
    fn anything_like_an_expression_ends(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "device", ".driver", ".attributes", "['gpu.example.com']", ".model", "(", ")", "[", "]", "1", "'a'", " + ", " == ",
                " && ", "!", "-", "? ", " : ", ".all(x, ", ".map(x, ", "x", ", ", "size(", "quantity('1')", ".?cores", "{", "}", "1u", "1.5",
            ]),
            0..25,
        ),
    ) {
        if let Ok(selector) = Selector::compile(&parts.concat()) {
            let _ = selector.selects(&device(), &mut 100_000);
        }
    }
}
