//! Replace, which for some kinds makes an object where there is none.

use orchestrator_core::{
    client::{Reply, WriteOptions},
    object::Object,
    status::ApiResult,
};

use super::{Scope, Server, apply::is_missing};
use crate::kinds;

impl Server {
    pub(super) async fn replace_or_create(
        &self,
        scope: &Scope,
        object: Object,
        options: WriteOptions,
    ) -> ApiResult<Reply> {
        let resource = &scope.kind.resource;
        if scope.subresource.is_some() || !kinds::creates_on_update(&resource.group, &resource.plural) {
            return self.replace(scope, object, options).await;
        }
        match self.replace(scope, object.clone(), options.clone()).await {
            Err(error) if is_missing(scope, &error) => {
                self.authorize(scope, "create")?;
                self.create(scope, object, options).await
            }
            replaced => replaced,
        }
    }
}
