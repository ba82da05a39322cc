//! Commands that a person can run, as messages show them.

use crate::model::{DocumentKey, ResourceKind};

/// The command that takes a member out of a policy; none where gcloud has no such command.
pub(super) fn take_out_command(document: &DocumentKey, member: &str, role: &str) -> Option<String> {
    let group = match document.kind() {
        ResourceKind::Service => "services",
        ResourceKind::Job => "jobs",
        ResourceKind::WorkerPool => return None,
    };
    Some(format!(
        "gcloud run {group} remove-iam-policy-binding {} --region={} --project={} --role={role} --member='{member}'",
        document.name(),
        document.location(),
        document.project(),
    ))
}
