//! What grants the permissions of a target in a project: a custom role that has exactly these, for one account.

use std::collections::BTreeSet;
use std::str::FromStr;

use serde::Serialize;

use crate::cli::ConfigError;

/// Stands in printed commands for the account that rolecall runs as.
pub(super) const PLACEHOLDER: &str = "MEMBER";

/// Id and title of the custom role.
const ROLE: &str = "rolecall";

/// The account that rolecall runs as. It becomes part of a shell command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member(String);

impl FromStr for Member {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let kinds = ["serviceAccount:", "user:", "group:", "principal://", "principalSet://"];
        let value = kinds.iter().find_map(|kind| text.strip_prefix(kind)).unwrap_or_default();
        let plain = value.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+@:/[]".contains(&b));
        if value.is_empty() || !plain {
            return Err(ConfigError::Member { value: crate::cli::table::one_line(text).chars().take(200).collect() });
        }
        Ok(Self(text.to_owned()))
    }
}

/// Commands and Terraform that grant the permissions of a target in one project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Grants {
    /// The project id.
    pub(super) project: String,
    /// Commands for a shell, in order.
    pub(super) gcloud: Vec<String>,
    /// Terraform resources.
    pub(super) terraform: String,
}

impl Grants {
    /// What grants all needed permissions, held or not: one role has them all.
    pub(super) fn of(project: &str, needed: &BTreeSet<&str>, member: Option<&Member>) -> Self {
        let member = member.map_or(PLACEHOLDER, |member| member.0.as_str());
        let list = needed.iter().copied().collect::<Vec<_>>().join(",");
        let gcloud = vec![
            format!(
                "gcloud iam roles create {ROLE} --project={project} --title={ROLE} --stage=GA --permissions={list}"
            ),
            format!(
                "gcloud projects add-iam-policy-binding {project} --member='{member}' --role=projects/{project}/roles/{ROLE} --condition=None"
            ),
        ];
        let name = format!("{ROLE}_{}", project.replace(|c: char| !c.is_ascii_alphanumeric(), "_"));
        let lines = needed.iter().copied().collect::<Vec<_>>().join("\",\n    \"");
        let terraform = format!(
            "resource \"google_project_iam_custom_role\" \"{name}\" {{\n  project     = \"{project}\"\n  role_id     = \"{ROLE}\"\n  \
             title       = \"{ROLE}\"\n  permissions = [\n    \"{lines}\",\n  ]\n}}\n\n\
             resource \"google_project_iam_member\" \"{name}\" {{\n  project = \"{project}\"\n  \
             role    = google_project_iam_custom_role.{name}.id\n  member  = \"{member}\"\n}}\n"
        );
        Self { project: project.to_owned(), gcloud, terraform }
    }

    /// The text for people.
    pub(super) fn page(&self) -> String {
        let Self { project, gcloud, terraform } = self;
        format!(
            "# A role in project {project} with exactly the permissions above. If it exists already, write `update` for `create`.\n{}\n\n\
             # The same as Terraform:\n{terraform}",
            gcloud.join("\n")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDED: [&str; 2] = ["run.services.list", "run.services.setIamPolicy"];

    #[test]
    fn the_printed_lines_grant_exactly_the_needed_permissions() {
        let member: Member = "serviceAccount:rolecall@shop-dev.iam.gserviceaccount.com".parse().unwrap();
        insta::assert_snapshot!(Grants::of("shop-dev", &NEEDED.into(), Some(&member)).page());
        assert!(Grants::of("shop-dev", &NEEDED.into(), None).gcloud[1].contains("--member='MEMBER'"));
    }

    #[test]
    fn a_member_that_a_shell_or_terraform_would_read_otherwise_is_refused() {
        for bad in [
            "",
            "user:",
            "rolecall@p",
            "user:a'b@example.com",
            "user:a b",
            "user:$(x)",
            "allUsers",
            "user:a\"",
            "user:a\nb",
        ] {
            assert!(bad.parse::<Member>().is_err(), "{bad:?}");
        }
        let workload =
            "principal://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/subject/ns/n/sa/s";
        assert!(workload.parse::<Member>().is_ok());
        assert!("serviceAccount:p.svc.id.goog[ns/sa]".parse::<Member>().is_ok());
    }
}
