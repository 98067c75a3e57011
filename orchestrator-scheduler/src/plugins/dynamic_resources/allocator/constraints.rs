//! What the devices of one claim must have in common, or not.

use std::collections::BTreeSet;

use k8s_openapi::api::resource::v1::{Device, DeviceAttribute, DeviceConstraint};

use super::{
    pools::PoolDevice,
    requests::{Alternative, Request},
};

/// A constraint and the devices that were added under it.
pub(super) struct Constraint<'a> {
    /// The full name of an attribute.
    attribute: &'a str,
    /// Whether all values must be different; otherwise, alike.
    distinct: bool,
    /// The requests that it is about, all if there are none.
    requests: BTreeSet<&'a str>,
    values: Vec<Attribute<'a>>,
}

/// An attribute's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attribute<'a> {
    Text(&'a str),
    Int(i64),
    Bool(bool),
    Version(&'a str),
}

impl<'a> Constraint<'a> {
    /// `None` if it says nothing that is known.
    pub(super) fn new(written: &'a DeviceConstraint) -> Option<Self> {
        let (attribute, distinct) = match (&written.match_attribute, &written.distinct_attribute) {
            (Some(attribute), _) => (attribute, false),
            (None, Some(attribute)) => (attribute, true),
            (None, None) => return None,
        };
        let requests = written.requests.iter().flatten().map(String::as_str).collect();
        Some(Self { attribute, distinct, requests, values: Vec::new() })
    }

    fn is_about(&self, request: &Request<'_>, alternative: &Alternative<'_>) -> bool {
        self.requests.is_empty()
            || self.requests.contains(request.name)
            || request.prioritized && self.requests.contains(alternative.full_name(request).as_str())
    }

    /// Whether a device may be added to those that were; if so, it is.
    pub(super) fn add(&mut self, to: (&Request<'_>, &Alternative<'_>), device: &PoolDevice<'a>) -> bool {
        if !self.is_about(to.0, to.1) {
            return true;
        }
        let Some(value) = attribute(device.device, device.driver(), self.attribute) else { return false };
        let fits = if self.distinct {
            !self.values.contains(&value)
        } else {
            self.values.first().is_none_or(|first| *first == value)
        };
        if fits {
            self.values.push(value);
        }
        fits
    }

    /// Takes back the last device that was added.
    pub(super) fn remove(&mut self, from: (&Request<'_>, &Alternative<'_>)) {
        if self.is_about(from.0, from.1) {
            self.values.pop();
        }
    }
}

/// An attribute by its full name. What a device has without a domain is in that of its driver.
fn attribute<'a>(device: &'a Device, driver: &str, name: &str) -> Option<Attribute<'a>> {
    let attributes = device.attributes.as_ref()?;
    let short = || attributes.get(name.strip_prefix(driver)?.strip_prefix('/')?);
    value_of(attributes.get(name).or_else(short)?)
}

fn value_of(attribute: &DeviceAttribute) -> Option<Attribute<'_>> {
    let text = attribute.string.as_deref().map(Attribute::Text);
    let int = attribute.int.map(Attribute::Int);
    let version = attribute.version.as_deref().map(Attribute::Version);
    text.or(int).or(attribute.bool.map(Attribute::Bool)).or(version)
}
