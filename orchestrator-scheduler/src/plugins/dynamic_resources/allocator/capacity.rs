//! What a request takes of a device's capacity.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::resource::v1::{CapacityRequestPolicy, CapacityRequestPolicyRange, DeviceCapacity},
    apimachinery::pkg::api::resource::Quantity as Written,
};
use orchestrator_core::{quantity::Quantity, scheduler::Taken};

use super::{pools::PoolDevice, requests::Alternative};

/// What a request takes of each capacity of a device, by the names that the device gives them; `None` if the device cannot
/// meet the request even when it is free.
pub(super) fn consumed(of: &PoolDevice<'_>, wanted: &Alternative<'_>) -> Option<BTreeMap<String, Quantity>> {
    let none = BTreeMap::new();
    let capacity = of.device.capacity.as_ref().unwrap_or(&none);
    let mut requests: BTreeMap<&str, Quantity> = BTreeMap::new();
    for (name, amount) in wanted.capacity.and_then(|wanted| wanted.requests.as_ref()).into_iter().flatten() {
        let name = same_name(capacity.keys(), name, of.driver())?;
        if requests.insert(name, Quantity::try_from(amount).ok()?).is_some() {
            return None;
        }
    }
    let mut consumed = BTreeMap::new();
    for (name, capacity) in capacity {
        let total = Quantity::try_from(&capacity.value).ok()?;
        let amount = amount(requests.get(name.as_str()), &total, capacity)?;
        if amount > total {
            return None;
        }
        consumed.insert(name.clone(), amount);
    }
    Some(consumed)
}

/// Whether a device has that much left besides what claims have of it and what was chosen for others.
pub(super) fn is_left(
    of: &PoolDevice<'_>,
    consumed: &BTreeMap<String, Quantity>,
    taken: Option<&Taken>,
    chosen: &BTreeMap<String, Quantity>,
) -> bool {
    let driver = of.driver();
    consumed.iter().all(|(name, amount)| {
        let capacity = of.device.capacity.as_ref().and_then(|capacity| capacity.get(name));
        let total = capacity.and_then(|capacity| Quantity::try_from(&capacity.value).ok()).unwrap_or_default();
        let taken = taken.into_iter().flat_map(|taken| &taken.capacity);
        let same = taken.filter(|(other, _)| short(other, driver) == short(name, driver)).map(|(_, amount)| amount);
        let sum: Quantity = same.chain(chosen.get(name)).cloned().sum();
        sum + amount.clone() <= total
    })
}

/// A name without the domain of the driver, which goes without saying.
fn short<'a>(name: &'a str, driver: &str) -> &'a str {
    name.strip_prefix(driver).and_then(|rest| rest.strip_prefix('/')).unwrap_or(name)
}

/// The one of a device's names that means the same.
fn same_name<'a>(names: impl Iterator<Item = &'a String>, name: &str, driver: &str) -> Option<&'a str> {
    let mut names = names.map(String::as_str);
    names.find(|known| short(known, driver) == short(name, driver))
}

fn amount(requested: Option<&Quantity>, total: &Quantity, capacity: &DeviceCapacity) -> Option<Quantity> {
    let policy = capacity.request_policy.as_ref();
    let read = |written: &Option<Written>| written.as_ref().map(|written| Quantity::try_from(written).ok());
    let Some(policy) = policy else { return Some(requested.unwrap_or(total).clone()) };
    let Some(requested) = requested else {
        return read(&policy.default).unwrap_or_else(|| Some(total.clone()));
    };
    match (&policy.valid_range, &policy.valid_values) {
        (Some(range), _) => in_range(requested, range),
        (None, Some(values)) if !values.is_empty() => one_of(requested, policy),
        _ => Some(requested.clone()),
    }
}

/// The least valid amount that is enough.
fn one_of(requested: &Quantity, policy: &CapacityRequestPolicy) -> Option<Quantity> {
    let values = policy.valid_values.iter().flatten().filter_map(|value| Quantity::try_from(value).ok());
    values.filter(|value| value >= requested).min()
}

/// The least amount of a range that is enough: its least one, and so many steps.
fn in_range(requested: &Quantity, range: &CapacityRequestPolicyRange) -> Option<Quantity> {
    let least = Quantity::try_from(&range.min).ok()?;
    let most = range.max.as_ref().map(Quantity::try_from).transpose().ok()?;
    let step = range.step.as_ref().map(Quantity::try_from).transpose().ok()?;
    let amount = match step {
        _ if *requested <= least => least,
        None => requested.clone(),
        Some(step) => {
            let (from, step_value) = (least.value(), step.value());
            let more = requested.value().checked_sub(from)?;
            let steps = more.checked_div(step_value)? + i64::from(more.checked_rem(step_value)? != 0);
            Quantity::from_value(from.checked_add(step_value.checked_mul(steps)?)?, step.format())
        }
    };
    most.is_none_or(|most| amount <= most).then_some(amount)
}
