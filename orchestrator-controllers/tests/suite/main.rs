//! Controllers, a few at a time, against a fake API server in virtual time.

mod clouds;
mod scaling;
mod upkeep;
mod volumes_and_devices;
mod world;
