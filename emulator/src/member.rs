//! The grammar of policy members, and how Google changes their spelling.

use std::collections::HashMap;

use crate::error::ApiError;

/// A parsed member, with the parts that the checks need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Member<'a> {
    /// `allUsers`, `allAuthenticatedUsers`.
    Special,
    /// `user:`, `group:`, `serviceAccount:`, with the e-mail.
    Account(Account, &'a str),
    /// `domain:`.
    Domain(&'a str),
    /// `principal://…` and `principalSet://…`.
    Federated,
    /// `deleted:…?uid=…` and `deleted:principal://…`.
    Deleted,
    /// `projectOwner:`, `projectEditor:`, `projectViewer:`.
    ProjectRole,
}

/// The kinds of account in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Account {
    User,
    Group,
    Service,
}

impl Account {
    pub(crate) const ALL: [Self; 3] = [Self::User, Self::Group, Self::Service];

    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Group => "group",
            Self::Service => "serviceAccount",
        }
    }

    /// The noun used in error texts.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::User => "User",
            Self::Group => "Group",
            Self::Service => "Service account",
        }
    }
}

/// Parses a member; type prefixes are case-sensitive.
pub(crate) fn parse(member: &str) -> Result<Member<'_>, ApiError> {
    if member == "allUsers" || member == "allAuthenticatedUsers" {
        return Ok(Member::Special);
    }
    let Some((prefix, value)) = member.split_once(':') else {
        return Err(ApiError::invalid("Policy members must be of the form \"<type>:<value>\"."));
    };
    let wrong = || ApiError::invalid(format!("Invalid value for member '{member}'."));
    if value.is_empty() || value.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(wrong());
    }
    match prefix {
        "user" if is_email(value) => Ok(Member::Account(Account::User, value)),
        "group" if is_email(value) => Ok(Member::Account(Account::Group, value)),
        "serviceAccount" if is_email(value) || is_workload_identity(value) => {
            Ok(Member::Account(Account::Service, value))
        }
        "domain" if is_domain(value) => Ok(Member::Domain(value)),
        "principal" if value.starts_with("//") && is_principal(value, false) => Ok(Member::Federated),
        "principalSet" if value.starts_with("//") && is_principal(value, true) => Ok(Member::Federated),
        "deleted" if is_deleted(value) => Ok(Member::Deleted),
        "projectOwner" | "projectEditor" | "projectViewer" => Ok(Member::ProjectRole),
        "user" | "group" | "serviceAccount" | "domain" | "principal" | "principalSet" | "deleted" => Err(wrong()),
        _ => Err(ApiError::invalid(format!(
            "The member {member} is of an unknown type. Please set a valid type prefix for the member."
        ))),
    }
}

fn is_email(value: &str) -> bool {
    value.split_once('@').is_some_and(|(local, domain)| {
        !local.is_empty() && !value.contains(['?', '/', ':', '[', ']', '<', '>']) && is_domain(domain)
    })
}

fn is_domain(value: &str) -> bool {
    value.contains('.')
        && value.len() <= 253
        && value.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        })
}

/// `{project}.svc.id.goog[{namespace}/{account}]`
fn is_workload_identity(value: &str) -> bool {
    value.split_once(".svc.id.goog[").is_some_and(|(project, rest)| {
        !project.is_empty()
            && rest
                .strip_suffix(']')
                .and_then(|inner| inner.split_once('/'))
                .is_some_and(|(ns, account)| !ns.is_empty() && !account.is_empty() && !account.contains('/'))
    })
}

fn is_principal(value: &str, set: bool) -> bool {
    let Some(rest) = value.strip_prefix("//iam.googleapis.com/") else {
        return set && is_service_account_set(value);
    };
    let parts: Vec<&str> = rest.split('/').collect();
    let tail = match parts.as_slice() {
        ["locations", "global", "workforcePools", pool, tail @ ..] if !pool.is_empty() => tail,
        ["projects", number, "locations", "global", "workloadIdentityPools", pool, tail @ ..]
            if !pool.is_empty() && is_number(number) =>
        {
            tail
        }
        _ => return false,
    };
    match tail {
        ["subject", subject @ ..] => !set && subject.iter().map(|s| s.len() + 1).sum::<usize>() > 1,
        ["group", group @ ..] => set && group.iter().map(|s| s.len() + 1).sum::<usize>() > 1,
        ["*"] => set,
        [attribute, value @ ..] => {
            set && attribute.strip_prefix("attribute.").is_some_and(|name| !name.is_empty())
                && value.iter().map(|s| s.len() + 1).sum::<usize>() > 1
        }
        [] => false,
    }
}

/// `//cloudresourcemanager.googleapis.com/{projects|folders|organizations}/{number}/type/ServiceAccount`
fn is_service_account_set(value: &str) -> bool {
    let Some(rest) = value.strip_prefix("//cloudresourcemanager.googleapis.com/") else { return false };
    matches!(rest.split('/').collect::<Vec<_>>().as_slice(),
        ["projects" | "folders" | "organizations", number, "type", "ServiceAccount"] if is_number(number))
}

fn is_number(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit())
}

/// True for a valid text after `deleted:`.
fn is_deleted(value: &str) -> bool {
    if let Some(principal) = value.strip_prefix("principal:") {
        return is_principal(principal, false);
    }
    let Some((prefix, rest)) = value.split_once(':') else { return false };
    let Some((email, uid)) = rest.split_once("?uid=") else { return false };
    matches!(prefix, "user" | "group" | "serviceAccount") && is_email(email) && is_number(uid)
}

/// The spelling under which a member is stored: e-mails and domains in lower case, unless `canonical` (folded member →
/// spelling) has another one. Aliases (folded e-mail → primary address) are resolved first, for users.
pub(crate) fn normalise(
    member: &str,
    canonical: &HashMap<String, String>,
    aliases: &HashMap<String, String>,
) -> String {
    let Ok(parsed) = parse(member) else { return member.to_owned() };
    let folded = match parsed {
        Member::Account(Account::User, email) => {
            let folded = email.to_lowercase();
            format!("user:{}", aliases.get(&folded).unwrap_or(&folded).to_lowercase())
        }
        Member::Account(Account::Service, value) if value.contains('[') => return member.to_owned(),
        Member::Account(account, email) => format!("{}:{}", account.prefix(), email.to_lowercase()),
        Member::Domain(domain) => format!("domain:{}", domain.to_lowercase()),
        _ => return member.to_owned(),
    };
    canonical.get(&folded).cloned().unwrap_or(folded)
}

/// The case-insensitive key of a member.
pub(crate) fn fold(member: &str) -> String {
    normalise(member, &HashMap::new(), &HashMap::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_form_is_accepted() {
        for member in [
            "allUsers",
            "allAuthenticatedUsers",
            "user:mike@example.com",
            "serviceAccount:my-app@proj.iam.gserviceaccount.com",
            "serviceAccount:proj.svc.id.goog[ns/ksa]",
            "group:admins@example.com",
            "domain:example.com",
            "principal://iam.googleapis.com/locations/global/workforcePools/acme/subject/a@b",
            "principalSet://iam.googleapis.com/locations/global/workforcePools/acme/group/6f0c",
            "principalSet://iam.googleapis.com/locations/global/workforcePools/acme/attribute.team/core",
            "principalSet://iam.googleapis.com/locations/global/workforcePools/acme/*",
            "principal://iam.googleapis.com/projects/123/locations/global/workloadIdentityPools/p/subject/s",
            "principalSet://cloudresourcemanager.googleapis.com/projects/123/type/ServiceAccount",
            "deleted:user:a@example.com?uid=123456789",
            "deleted:principal://iam.googleapis.com/locations/global/workforcePools/acme/subject/s",
            "projectOwner:demo",
        ] {
            assert!(parse(member).is_ok(), "{member}");
        }
    }

    #[test]
    fn malformed_members_are_refused() {
        for member in [
            "bob",
            "",
            "User:bob@example.com",
            "ALLUSERS",
            "user:",
            "user:bob",
            "user:bob@",
            "user:bo b@example.com",
            "group:@example.com",
            "domain:example",
            "principal://iam.googleapis.com/locations/global/workforcePools/acme/group/g",
            "principalSet://iam.googleapis.com/locations/global/workforcePools/acme/subject/s",
            "principal:iam.googleapis.com/x",
            "deleted:user:a@example.com",
            "deleted:user:a@example.com?uid=x",
        ] {
            assert!(parse(member).is_err(), "{member}");
        }
    }

    #[test]
    fn values_are_folded_and_federated_names_are_not() {
        assert_eq!(fold("user:Bob@Example.COM"), "user:bob@example.com");
        let federated = "principal://iam.googleapis.com/locations/global/workforcePools/Acme/subject/Bob";
        assert_eq!(fold(federated), federated);
        assert_eq!(fold("serviceAccount:proj.svc.id.goog[Ns/Ksa]"), "serviceAccount:proj.svc.id.goog[Ns/Ksa]");
    }

    #[test]
    fn canonical_case_and_aliases_decide_the_stored_spelling() {
        let canonical = HashMap::from([("user:bob@example.com".to_owned(), "user:Bob@example.com".to_owned())]);
        let aliases = HashMap::from([("bobby@example.com".to_owned(), "bob@example.com".to_owned())]);
        assert_eq!(normalise("user:BOBBY@example.com", &canonical, &aliases), "user:Bob@example.com");
    }
}
