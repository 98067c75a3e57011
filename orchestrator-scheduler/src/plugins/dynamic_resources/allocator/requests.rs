//! What claims ask for, read once for all nodes.

use std::{collections::BTreeMap, rc::Rc};

use k8s_openapi::api::resource::v1::{
    CapacityRequirements, DeviceClaim, DeviceClass, DeviceRequest, DeviceSelector, DeviceToleration, ResourceClaim,
};
use orchestrator_core::{object::ObjectKey, scheduler::Devices};

use super::NoAllocation;
use crate::plugins::dynamic_resources::cel::Selector;

/// A claim and what it asks for.
pub(super) struct Wanted<'a> {
    pub(super) claim: &'a ResourceClaim,
    /// Namespace and name.
    pub(super) key: String,
    pub(super) requests: Vec<Request<'a>>,
}

/// A request: the first of its alternatives that can be had.
pub(super) struct Request<'a> {
    pub(super) name: &'a str,
    pub(super) alternatives: Vec<Alternative<'a>>,
    /// Whether the alternatives have names of their own.
    pub(super) prioritized: bool,
}

/// Devices of a class, so many of those that selectors leave.
pub(super) struct Alternative<'a> {
    /// Its own name, which is the request's where that has no others.
    pub(super) name: &'a str,
    pub(super) class: &'a DeviceClass,
    pub(super) selectors: Vec<Selecting>,
    /// `None` for all there are.
    pub(super) count: Option<usize>,
    pub(super) admin_access: bool,
    pub(super) tolerations: &'a [DeviceToleration],
    pub(super) capacity: Option<&'a CapacityRequirements>,
}

/// A selector, or why it cannot be read.
pub(super) struct Selecting {
    /// Where it stands, for messages.
    pub(super) place: String,
    pub(super) selector: Rc<Result<Selector, String>>,
}

/// What requests and their alternatives have in common.
struct Asked<'a> {
    name: &'a str,
    class: &'a str,
    mode: &'a str,
    count: i64,
    admin_access: bool,
    selectors: &'a [DeviceSelector],
    tolerations: &'a [DeviceToleration],
    capacity: Option<&'a CapacityRequirements>,
}

/// The part of a claim that is about devices.
pub(in crate::plugins::dynamic_resources) fn devices_of(claim: &ResourceClaim) -> Option<&DeviceClaim> {
    claim.spec.devices.as_ref()
}

/// The requests of a claim.
pub(in crate::plugins::dynamic_resources) fn requests_of(claim: &ResourceClaim) -> &[DeviceRequest] {
    devices_of(claim).and_then(|devices| devices.requests.as_deref()).unwrap_or_default()
}

/// Reads claims. Expressions that stand more than once are read once. Takes what that costs from the `steps` that are left.
pub(super) fn read<'a>(
    claims: &[&'a ResourceClaim],
    devices: &'a Devices,
    steps: &mut u64,
) -> Result<Vec<Wanted<'a>>, NoAllocation> {
    let mut reader = Reader { devices, expressions: BTreeMap::new(), steps: *steps };
    let wanted = claims.iter().copied().map(|claim| reader.claim(claim)).collect();
    *steps = reader.steps;
    wanted
}

struct Reader<'a> {
    devices: &'a Devices,
    expressions: BTreeMap<&'a str, Rc<Result<Selector, String>>>,
    steps: u64,
}

impl<'a> Reader<'a> {
    fn claim(&mut self, claim: &'a ResourceClaim) -> Result<Wanted<'a>, NoAllocation> {
        let key = ObjectKey::of(&claim.metadata).to_string();
        let requests = requests_of(claim).iter().map(|request| self.request(&key, request));
        Ok(Wanted { claim, requests: requests.collect::<Result<_, NoAllocation>>()?, key })
    }

    fn request(&mut self, claim: &str, request: &'a DeviceRequest) -> Result<Request<'a>, NoAllocation> {
        let name = request.name.as_str();
        let first = request.first_available.as_deref().unwrap_or_default();
        let alternatives = match &request.exactly {
            Some(exactly) => {
                let asked = Asked {
                    name,
                    class: &exactly.device_class_name,
                    mode: exactly.allocation_mode.as_deref().unwrap_or_default(),
                    count: exactly.count.unwrap_or(1),
                    admin_access: exactly.admin_access.unwrap_or(false),
                    selectors: exactly.selectors.as_deref().unwrap_or_default(),
                    tolerations: exactly.tolerations.as_deref().unwrap_or_default(),
                    capacity: exactly.capacity.as_ref(),
                };
                vec![self.alternative(claim, &asked)?]
            }
            None => {
                let asked = first.iter().map(|choice| Asked {
                    name: &choice.name,
                    class: &choice.device_class_name,
                    mode: choice.allocation_mode.as_deref().unwrap_or_default(),
                    count: choice.count.unwrap_or(1),
                    admin_access: false,
                    selectors: choice.selectors.as_deref().unwrap_or_default(),
                    tolerations: choice.tolerations.as_deref().unwrap_or_default(),
                    capacity: choice.capacity.as_ref(),
                });
                asked.map(|asked| self.alternative(claim, &asked)).collect::<Result<_, NoAllocation>>()?
            }
        };
        Ok(Request { name, alternatives, prioritized: request.exactly.is_none() })
    }

    fn alternative(&mut self, claim: &str, asked: &Asked<'a>) -> Result<Alternative<'a>, NoAllocation> {
        let name = asked.name;
        let wrong = |what: String| Err(NoAllocation::Failed(format!("claim {claim}, request {name}{what}")));
        if let Some(at) = asked.selectors.iter().position(|selector| selector.cel.is_none()) {
            return wrong(format!(", selector #{at}: CEL expression empty (unsupported selector type?)"));
        }
        if asked.class.is_empty() {
            return wrong(": missing device class name (unsupported request type?)".to_owned());
        }
        let Some(class) = self.devices.classes.get(asked.class) else {
            let missing = format!("deviceclass.resource.k8s.io {:?} not found", asked.class);
            return wrong(format!(": could not retrieve device class {}: {missing}", asked.class));
        };
        let count = match asked.mode {
            "" | "ExactCount" => Some(usize::try_from(asked.count).unwrap_or(0)),
            "All" => None,
            other => return wrong(format!(": unsupported count mode {other}")),
        };
        let of_class = class.spec.selectors.as_deref().unwrap_or_default();
        let mut selectors = self.selectors(&format!("class {}", asked.class), of_class)?;
        selectors.extend(self.selectors(&format!("claim {claim}"), asked.selectors)?);
        let (admin_access, tolerations, capacity) = (asked.admin_access, asked.tolerations, asked.capacity);
        Ok(Alternative { name, class, selectors, count, admin_access, tolerations, capacity })
    }

    fn selectors(&mut self, owner: &str, selectors: &'a [DeviceSelector]) -> Result<Vec<Selecting>, NoAllocation> {
        let expressions = selectors.iter().enumerate().filter_map(|(at, selector)| Some((at, selector.cel.as_ref()?)));
        let selecting = expressions.map(|(at, cel)| {
            let selector = self.selector(&cel.expression)?;
            Ok(Selecting { place: format!("{owner}: selector #{at}"), selector })
        });
        selecting.collect()
    }

    fn selector(&mut self, expression: &'a str) -> Result<Rc<Result<Selector, String>>, NoAllocation> {
        if let Some(known) = self.expressions.get(expression) {
            return Ok(known.clone());
        }
        let left = self.steps.checked_sub(expression.len() as u64);
        self.steps = left.unwrap_or(0);
        left.ok_or(NoAllocation::Spent)?;
        let selector = Rc::new(Selector::compile(expression));
        self.expressions.insert(expression, selector.clone());
        Ok(selector)
    }
}

impl Alternative<'_> {
    /// Its name within the claim.
    pub(super) fn full_name(&self, request: &Request<'_>) -> String {
        if request.prioritized { format!("{}/{}", request.name, self.name) } else { self.name.to_owned() }
    }
}
