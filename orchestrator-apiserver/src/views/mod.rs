//! What the server shows of itself and its objects, besides the objects: discovery, tables, schemas. All of it is pure.

pub(crate) mod descriptions;
pub(crate) mod discovery;
pub(crate) mod openapi;
pub(crate) mod partial;
pub(crate) mod table;
