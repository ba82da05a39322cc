//! The status that replaces one refused by the API server as malformed: it reports the refusal, and contains nothing
//! else that could be refused.

use jiff::Timestamp;

use super::cache::Status;
use super::conditions::{Conditions, with_next_step};
use crate::api::{CloudRunTargetStatus, IdentityProviderStatus, RoleMappingStatus};
use crate::model::Reason;

/// The replacement for a refused status.
pub(super) fn refused(status: &Status, refusal: &str, generation: Option<i64>, now: Timestamp) -> Status {
    let mut conditions = Conditions::new(status.conditions(), generation.unwrap_or_default(), now);
    let message = format!("the API server refuses the status, so that nothing else is shown here: {refusal}");
    conditions.set_ready(false, Reason::StatusRefused, &with_next_step(&message, Reason::StatusRefused));
    let conditions = conditions.finish();
    match status {
        Status::IdentityProvider(status) => Status::IdentityProvider(Box::new(IdentityProviderStatus {
            observed_generation: generation,
            conditions,
            // The next start compares its store with this id.
            store_id: status.store_id.clone(),
            operator_namespace: status.operator_namespace.clone(),
            ..IdentityProviderStatus::default()
        })),
        Status::CloudRunTarget(_) => Status::CloudRunTarget(Box::new(CloudRunTargetStatus {
            observed_generation: generation,
            conditions,
            ..CloudRunTargetStatus::default()
        })),
        Status::RoleMapping(_) => Status::RoleMapping(Box::new(RoleMappingStatus {
            observed_generation: generation,
            conditions,
            ..RoleMappingStatus::default()
        })),
    }
    .fitted()
}
