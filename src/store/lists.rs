//! Lists of users and groups, planned before they are read.

use super::sqlite::list;
use super::{ListPlan, ListQuery, Store, StoreError};
use crate::model::ProviderName;
use crate::scim::ResourceType;

impl Store {
    /// Plans a list: the users or groups in it, and their sizes.
    ///
    /// # Errors
    /// [`StoreError::UnsupportedFilter`] when no index answers the filter.
    pub(crate) async fn plan_list(
        &self,
        of: ResourceType,
        p: &ProviderName,
        q: &ListQuery,
    ) -> Result<ListPlan, StoreError> {
        let (p, q) = (p.clone(), q.clone());
        self.read(move |db| list::plan(db, of, &p, &q)).await
    }
}
