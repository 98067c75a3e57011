//! `DefaultBinder`: binds a pod through its `binding` subresource.

use async_trait::async_trait;

use crate::{
    apply::bind_through_api,
    framework::{Bind, BindError, Binding, Plugin},
};

/// Binds a pod through its `binding` subresource.
#[derive(Clone, Copy, Debug)]
pub struct DefaultBinder;

impl Plugin for DefaultBinder {
    fn name(&self) -> &'static str {
        "DefaultBinder"
    }
}

#[async_trait]
impl Bind for DefaultBinder {
    async fn bind(&self, binding: &Binding) -> Result<bool, BindError> {
        bind_through_api(binding).await.map(|()| true)
    }
}
