//! Pools of devices as a node sees them: only the newest generation of each, and whether it is whole.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::{
    core::v1::{Node, NodeSelector},
    resource::v1::{CounterSet, Device, ResourceSlice},
};
use orchestrator_core::scheduler::{DeviceId, Devices, matching::node_selector_matches};

/// All slices, in an order that suits nodes.
pub(super) struct Slices<'a> {
    of_node: BTreeMap<&'a str, Vec<&'a ResourceSlice>>,
    shared: Vec<&'a ResourceSlice>,
    of_pool: BTreeMap<PoolKey<'a>, Vec<&'a ResourceSlice>>,
}

/// A driver and the name of its pool.
type PoolKey<'a> = (&'a str, &'a str);

/// A pool, or what of it is on a node.
pub(super) struct Pool<'a> {
    pub(super) state: PoolState,
    key: PoolKey<'a>,
    /// Devices for this node, in the order in which they are tried.
    pub(super) devices: Vec<PoolDevice<'a>>,
    /// All devices that may take of the counters, of other nodes, too.
    all: Vec<(&'a ResourceSlice, &'a Device)>,
    pub(super) counters: BTreeMap<&'a str, &'a CounterSet>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PoolState {
    Usable,
    /// Its driver is still writing it.
    Incomplete,
    /// It contradicts itself.
    Invalid,
}

/// A device of a pool.
pub(super) struct PoolDevice<'a> {
    pub(super) device: &'a Device,
    pub(super) slice: &'a ResourceSlice,
}

impl<'a> Slices<'a> {
    pub(super) fn new(devices: &'a Devices) -> Self {
        let (mut of_node, mut shared, mut of_pool) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        for slice in devices.slices.values().map(AsRef::as_ref) {
            match slice.spec.node_name.as_deref().filter(|name| !name.is_empty()) {
                Some(node) => of_node.entry(node).or_insert_with(Vec::new).push(slice),
                None => shared.push(slice),
            }
            of_pool.entry(pool_key(slice)).or_insert_with(Vec::new).push(slice);
        }
        Self { of_node, shared, of_pool }
    }

    /// The pools that a node can use devices of, those whose devices need no preparation first.
    /// `spend` takes steps away: one for each slice and each device that is looked at.
    pub(super) fn pools<E>(
        &self,
        node: &Node,
        mut spend: impl FnMut(u64) -> Result<(), E>,
    ) -> Result<Vec<Pool<'a>>, E> {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let mut found: BTreeMap<PoolKey<'a>, Vec<&'a ResourceSlice>> = BTreeMap::new();
        let own = self.of_node.get(name).into_iter().flatten().chain(&self.shared).copied();
        for slice in own {
            let per_device = slice.spec.per_device_node_selection == Some(true);
            spend(1 + if per_device { device_count(slice) } else { 0 })?;
            if !has_counters(slice) && !is_on(slice, node) {
                continue;
            }
            let slices = found.entry(pool_key(slice)).or_default();
            let generation = |slice: &ResourceSlice| slice.spec.pool.generation;
            slices.retain(|known| generation(known) >= generation(slice));
            if slices.iter().all(|known| generation(known) <= generation(slice)) {
                slices.push(slice);
            }
        }
        let mut pools = Vec::with_capacity(found.len());
        for (key, slices) in found {
            let all = self.of_pool.get(&key).into_iter().flatten();
            spend(all.map(|slice| 1 + device_count(slice)).sum())?;
            pools.extend(self.pool(key, slices, node));
        }
        pools.sort_by_cached_key(|pool| (pool.needs_preparation(), pool.to_string()));
        Ok(pools)
    }

    /// `None` if there is a newer generation elsewhere.
    fn pool(&self, key: PoolKey<'a>, slices: Vec<&'a ResourceSlice>, node: &Node) -> Option<Pool<'a>> {
        let wanted = &slices.first()?.spec.pool;
        let mut pool =
            Pool { state: PoolState::Usable, key, devices: Vec::new(), all: Vec::new(), counters: BTreeMap::new() };
        let all = self.of_pool.get(&key).map(Vec::as_slice).unwrap_or_default();
        let complete = |slices: usize| slices as i64 == wanted.resource_slice_count;
        let mut whole = slices.clone();
        if !complete(slices.len()) {
            if all.iter().any(|slice| slice.spec.pool.generation > wanted.generation) {
                return None;
            }
            whole = all.iter().copied().filter(|slice| slice.spec.pool.generation == wanted.generation).collect();
            if !complete(whole.len()) {
                pool.state = PoolState::Incomplete;
                return Some(pool);
            }
        }
        let is_right = pool.take_counters(&whole) && pool.take_devices(&slices, &whole, node);
        if !is_right {
            pool.state = PoolState::Invalid;
            pool.devices.clear();
        }
        Some(pool)
    }
}

impl<'a> Pool<'a> {
    /// Whether the names of the counters are right.
    fn take_counters(&mut self, slices: &[&'a ResourceSlice]) -> bool {
        let mut sets = slices.iter().flat_map(|slice| slice.spec.shared_counters.iter().flatten());
        sets.all(|set| self.counters.insert(&set.name, set).is_none())
    }

    /// Whether the names of the devices, and of what they take of counters, are right.
    fn take_devices(&mut self, slices: &[&'a ResourceSlice], whole: &[&'a ResourceSlice], node: &Node) -> bool {
        let mut names = BTreeSet::new();
        for slice in slices.iter().filter(|slice| !has_counters(slice)) {
            for device in slice.spec.devices.iter().flatten() {
                if !names.insert(device.name.as_str()) {
                    return false;
                }
                let per_device = slice.spec.per_device_node_selection == Some(true);
                if !per_device || is_device_on(device, node) {
                    self.devices.push(PoolDevice { device, slice });
                }
            }
        }
        let with_devices = whole.iter().copied().filter(|slice| !has_counters(slice));
        let devices = with_devices.flat_map(|slice| slice.spec.devices.iter().flatten().map(move |it| (slice, it)));
        self.all = devices.collect();
        let mut consumptions = self.all.iter().flat_map(|(_, device)| device.consumes_counters.iter().flatten());
        consumptions.all(|consumption| {
            let set = self.counters.get(consumption.counter_set.as_str());
            set.is_some_and(|set| consumption.counters.keys().all(|name| set.counters.contains_key(name)))
        })
    }

    fn needs_preparation(&self) -> bool {
        let conditions = self.devices.iter().map(|device| device.device.binding_conditions.as_ref());
        conditions.flatten().any(|conditions| !conditions.is_empty())
    }

    /// The devices that claims have and that take of the counters.
    pub(super) fn consumers<'s>(&'s self, devices: &'s Devices) -> impl Iterator<Item = &'a Device> + use<'s, 'a> {
        let taken = self.all.iter().filter(|(slice, device)| devices.taken(&device_id(slice, device)).is_some());
        taken.map(|(_, device)| *device)
    }
}

impl<'a> PoolDevice<'a> {
    pub(super) fn id(&self) -> DeviceId {
        device_id(self.slice, self.device)
    }

    pub(super) fn driver(&self) -> &'a str {
        &self.slice.spec.driver
    }
}

impl std::fmt::Display for Pool<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.key.0, self.key.1)
    }
}

fn pool_key(slice: &ResourceSlice) -> PoolKey<'_> {
    (&slice.spec.driver, &slice.spec.pool.name)
}

fn device_id(slice: &ResourceSlice, device: &Device) -> DeviceId {
    let (driver, pool) = pool_key(slice);
    DeviceId { driver: driver.to_owned(), pool: pool.to_owned(), device: device.name.clone() }
}

fn device_count(slice: &ResourceSlice) -> u64 {
    slice.spec.devices.as_ref().map_or(0, Vec::len) as u64
}

fn has_counters(slice: &ResourceSlice) -> bool {
    slice.spec.shared_counters.as_ref().is_some_and(|sets| !sets.is_empty())
}

/// Whether a node can use any device of a slice.
fn is_on(slice: &ResourceSlice, node: &Node) -> bool {
    let spec = &slice.spec;
    if spec.per_device_node_selection == Some(true) {
        return spec.devices.iter().flatten().any(|device| is_device_on(device, node));
    }
    selects(spec.node_name.as_deref(), spec.all_nodes, spec.node_selector.as_ref(), node)
}

fn is_device_on(device: &Device, node: &Node) -> bool {
    selects(device.node_name.as_deref(), device.all_nodes, device.node_selector.as_ref(), node)
}

fn selects(name: Option<&str>, all: Option<bool>, selector: Option<&NodeSelector>, node: &Node) -> bool {
    match name.filter(|name| !name.is_empty()) {
        Some(name) => node.metadata.name.as_deref() == Some(name),
        None => all == Some(true) || selector.is_some_and(|selector| node_selector_matches(selector, node)),
    }
}
