use reqwest::header::{HeaderName, HeaderValue};
use serde_json::json;

use super::*;
use crate::target::ErrorClass;

const HTML: &str = "<!DOCTYPE html><html lang=en><title>Error</title><p><b>502.</b> That’s an error.";

fn answer(call: Call, code: u16, body: &str) -> GoogleError {
    classify(call, StatusCode::from_u16(code).unwrap(), &HeaderMap::new(), body.as_bytes())
}

fn envelope(code: u16, status: &str, message: &str) -> String {
    json!({"error": {"code": code, "message": message, "status": status}}).to_string()
}

/// The quota answer of Cloud Run, with its details.
fn quota(code: u16, status: &str) -> String {
    json!({"error": {"code": code, "status": status,
        "message": "Quota exceeded for quota metric 'Write requests' and limit 'Write requests per minute per region' of service 'run.googleapis.com' for consumer 'project_number:123456789012'.",
        "details": [
            {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "RATE_LIMIT_EXCEEDED", "domain": "googleapis.com",
             "metadata": {"service": "run.googleapis.com", "quota_limit": "WritePerMinutePerProjectRegion", "quota_location": "us-central1"}},
            {"@type": "type.googleapis.com/google.rpc.Help", "links": []}]}})
    .to_string()
}

/// Reason and class.
type Meaning = (&'static str, ErrorClass);

#[expect(clippy::too_many_lines, reason = "a table")]
#[test]
fn each_known_answer_has_its_reason_and_class_for_reads_and_writes() {
    use ErrorClass::{Conflict, Definitive, Retry, Throttle, Unknown};
    let octal = r#"{"error":{"code":409,"message":"There were concurrent policy changes. Please retry the whole read-modify-write with exponential backoff. The request's ETag '\\007\\005\\350\\',\\273P\\021' did not match the current policy's ETag '\\007\\005\\350(x\\0166\\214'.","errors":[{"message":"There were concurrent policy changes. Please…","domain":"global","reason":"aborted"}],"status":"ABORTED"}}"#;
    let disabled = json!({"error": {"code": 403, "status": "PERMISSION_DENIED",
        "message": "Cloud Run Admin API has not been used in project 123456789012 before or it is disabled. Enable it and retry.",
        "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "SERVICE_DISABLED", "domain": "googleapis.com"}]}}).to_string();
    let table: &[(u16, &str, Meaning, Meaning)] = &[
        (409, octal, ("EtagConflict", Conflict), ("EtagConflict", Conflict)),
        (
            409,
            &envelope(409, "ALREADY_EXISTS", "it exists"),
            ("PolicyRefused", Definitive),
            ("PolicyRefused", Definitive),
        ),
        (409, HTML, ("GoogleUnavailable", Retry), ("OutcomeUnknown", Unknown)),
        (
            400,
            &envelope(400, "INVALID_ARGUMENT", "Request contains an invalid argument."),
            ("PolicyRefused", Definitive),
            ("PolicyRefused", Definitive),
        ),
        (400, HTML, ("GoogleUnavailable", Retry), ("OutcomeUnknown", Unknown)),
        (
            403,
            &envelope(
                403,
                "PERMISSION_DENIED",
                "Permission 'run.services.setIamPolicy' denied on resource 'projects/P/locations/L/services/S' (or resource may not exist).",
            ),
            ("PermissionDenied", Definitive),
            ("PermissionDenied", Definitive),
        ),
        (403, HTML, ("PermissionDenied", Definitive), ("PermissionDenied", Definitive)),
        (403, &disabled, ("ApiDisabled", Definitive), ("ApiDisabled", Definitive)),
        (403, &quota(403, "PERMISSION_DENIED"), ("Throttled", Throttle), ("Throttled", Throttle)),
        (
            403,
            r#"{"error":{"code":403,"message":"Rate Limit Exceeded","errors":[{"reason":"rateLimitExceeded","domain":"usageLimits"}]}}"#,
            ("Throttled", Throttle),
            ("Throttled", Throttle),
        ),
        (429, &quota(429, "RESOURCE_EXHAUSTED"), ("Throttled", Throttle), ("Throttled", Throttle)),
        (429, HTML, ("Throttled", Throttle), ("Throttled", Throttle)),
        (401, &envelope(401, "UNAUTHENTICATED", "no"), ("Unauthenticated", Retry), ("Unauthenticated", Retry)),
        (401, "", ("Unauthenticated", Retry), ("Unauthenticated", Retry)),
        (
            404,
            &envelope(404, "NOT_FOUND", "Resource 'S' of kind 'SERVICE' in region 'L' in project 'P' does not exist."),
            ("ResourceNotFound", Definitive),
            ("ResourceNotFound", Definitive),
        ),
        (404, HTML, ("GoogleUnavailable", Retry), ("OutcomeUnknown", Unknown)),
        (404, r#"{"message":"no route"}"#, ("GoogleUnavailable", Retry), ("OutcomeUnknown", Unknown)),
        (413, HTML, ("PolicyFull", Definitive), ("PolicyFull", Definitive)),
        (500, &envelope(500, "INTERNAL", "oops"), ("GoogleUnavailable", Retry), ("OutcomeUnknown", Unknown)),
        (
            503,
            &envelope(503, "UNAVAILABLE", "The service is currently unavailable."),
            ("GoogleUnavailable", Retry),
            ("OutcomeUnknown", Unknown),
        ),
        (502, HTML, ("GoogleUnavailable", Retry), ("OutcomeUnknown", Unknown)),
        (504, &envelope(504, "DEADLINE_EXCEEDED", "late"), ("GoogleUnavailable", Retry), ("OutcomeUnknown", Unknown)),
        (499, &envelope(499, "CANCELLED", "cancelled"), ("GoogleUnavailable", Retry), ("OutcomeUnknown", Unknown)),
        (408, "", ("GoogleUnavailable", Retry), ("OutcomeUnknown", Unknown)),
        (
            501,
            &envelope(501, "UNIMPLEMENTED", "not here"),
            ("PolicyRefused", Definitive),
            ("PolicyRefused", Definitive),
        ),
        (302, "", ("GoogleUnavailable", Retry), ("OutcomeUnknown", Unknown)),
        (
            400,
            &envelope(400, "INVALID_ARGUMENT", "Policy members must be of the form \"<type>:<value>\"."),
            ("MemberRefused", Definitive),
            ("MemberRefused", Definitive),
        ),
        (
            400,
            &envelope(400, "INVALID_ARGUMENT", "Role roles/run.invoker is not supported for this resource."),
            ("RoleNotSupported", Definitive),
            ("RoleNotSupported", Definitive),
        ),
        (
            400,
            &envelope(
                400,
                "INVALID_ARGUMENT",
                "The number of members in the policy (1,501) is larger than the maximum allowed size 1,500.",
            ),
            ("PolicyFull", Definitive),
            ("PolicyFull", Definitive),
        ),
        (
            400,
            &envelope(
                400,
                "FAILED_PRECONDITION",
                "One or more users named in the policy do not belong to a permitted customer,  perhaps due to an organization policy.",
            ),
            ("DomainRestricted", Definitive),
            ("DomainRestricted", Definitive),
        ),
    ];
    for (code, body, read, write) in table {
        for (call, (reason, class)) in [(Call::Read, read), (Call::Write, write)] {
            let error = answer(call, *code, body);
            assert_eq!((error.reason().word(), error.class()), (*reason, *class), "{call:?} {code} {body}");
        }
    }
}

#[test]
fn a_write_is_unknown_for_every_status_of_a_server_failure_whatever_the_body() {
    for code in 500..=599 {
        for body in ["", HTML, &envelope(code, "UNAVAILABLE", "x"), "{", r#"{"error":"text"}"#] {
            let error = answer(Call::Write, code, body);
            assert_eq!(error.class(), ErrorClass::Unknown, "{code} {body}");
        }
    }
}

#[test]
fn a_refusal_names_the_principal_that_the_text_names() {
    let table = [
        ("User gone@example.com does not exist.", RefusalCause::PrincipalUnknown, Some("user:gone@example.com")),
        ("Group gone@example.com does not exist.", RefusalCause::PrincipalUnknown, Some("group:gone@example.com")),
        (
            "Service account gone@p.iam.gserviceaccount.com does not exist.",
            RefusalCause::PrincipalUnknown,
            Some("serviceAccount:gone@p.iam.gserviceaccount.com"),
        ),
        (
            "Invalid argument: User gone@example.com does not exist.",
            RefusalCause::PrincipalUnknown,
            Some("user:gone@example.com"),
        ),
        (
            "Account ops@example.com is of type \"group\". Please set the type prefix to be \"group:\".",
            RefusalCause::PrincipalType,
            Some("user:ops@example.com"),
        ),
        (
            "Invalid value for member 'user:x<y@example.com'.",
            RefusalCause::PrincipalMalformed,
            Some("user:x<y@example.com"),
        ),
        ("User of this and that does not exist.", RefusalCause::PrincipalUnknown, None),
        ("Something does not exist.", RefusalCause::Other, None),
    ];
    for (text, cause, member) in table {
        let error = answer(Call::Write, 400, &envelope(400, "INVALID_ARGUMENT", text));
        let expected = GoogleError::Refused {
            cause,
            message: text.to_owned(),
            member: member.map(str::to_owned),
            others: vec![],
            role: None,
        };
        assert_eq!(error, expected);
    }
}

#[test]
fn a_refusal_names_the_role_that_the_text_names() {
    let table = [
        (
            "Role roles/run.invoker is not supported for this resource.",
            RefusalCause::RoleNotSupported,
            None,
            Some("roles/run.invoker"),
        ),
        (
            "Role (projects/p/roles/x) does not exist in the resource's hierarchy.",
            RefusalCause::RoleNotSupported,
            None,
            Some("projects/p/roles/x"),
        ),
        (
            "Member 'allUsers' is not allowed in role 'roles/run.admin'.",
            RefusalCause::PrincipalRefused,
            Some("allUsers"),
            Some("roles/run.admin"),
        ),
        ("Role of this and that is not supported for this resource.", RefusalCause::RoleNotSupported, None, None),
    ];
    for (text, cause, member, role) in table {
        let error = answer(Call::Write, 400, &envelope(400, "INVALID_ARGUMENT", text));
        let (member, role) = (member.map(str::to_owned), role.map(str::to_owned));
        assert_eq!(error, GoogleError::Refused { cause, message: text.to_owned(), member, others: vec![], role });
    }
}

#[test]
fn a_denial_by_an_organization_policy_is_distinguished_from_a_refused_member() {
    let table = [
        (
            "Operation denied by org policy on resource 'projects/p': [\"constraints/iam.managed.allowedPolicyMembers\": \"outside\"]",
            RefusalCause::DomainRestricted,
        ),
        (
            "Operation denied by custom org policies: [\"customConstraints/custom.noViewers\": \"no viewers\"].",
            RefusalCause::OrganizationPolicy,
        ),
    ];
    for (text, wanted) in table {
        let GoogleError::Refused { cause, member, .. } =
            answer(Call::Write, 400, &envelope(400, "FAILED_PRECONDITION", text))
        else {
            panic!("not a refusal")
        };
        assert_eq!((cause, member), (wanted, None));
    }
}

#[test]
fn a_tombstone_with_a_wrong_uid_is_named() {
    let member = |text: &str| match answer(Call::Write, 400, &envelope(400, "INVALID_ARGUMENT", text)) {
        GoogleError::Refused { cause: RefusalCause::PrincipalMalformed, member, .. } => member,
        other => panic!("{other:?}"),
    };
    let start = "Email 'a@x.example' is not the primary email address for unique ID '7' of deleted member ";
    let tombstone = "deleted:user:a@x.example?uid=7";
    for end in [format!("'{tombstone}'."), format!("\"{tombstone}\""), tombstone.to_owned(), format!("{tombstone}.")] {
        assert_eq!(member(&format!("{start}{end}")).as_deref(), Some(tombstone), "{end}");
    }
    assert_eq!(member(&format!("{start}'somebody else'.")), None);
}

#[test]
fn a_custom_organization_policy_is_known_by_its_details_whatever_the_text() {
    let body = json!({"error": {"code": 400, "status": "FAILED_PRECONDITION", "message": "No.",
        "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "CUSTOM_ORG_POLICY_VIOLATION"}]}})
    .to_string();
    let GoogleError::Refused { cause, .. } = answer(Call::Write, 400, &body) else { panic!("not a refusal") };
    assert_eq!(cause, RefusalCause::OrganizationPolicy);
}

#[test]
fn a_domain_restriction_names_the_principal_of_its_details() {
    let body = |violation: Value| {
        json!({"error": {"code": 400, "status": "FAILED_PRECONDITION",
            "message": "One or more users named in the policy do not belong to a permitted customer.",
            "details": [{"@type": "type.googleapis.com/google.rpc.PreconditionFailure", "violations": [violation]}]}})
        .to_string()
    };
    let subject = "orgpolicy:projects/PROJECT?configvalue=service-b-123@gcp-sa-logging.iam.gserviceaccount.com";
    let described = json!({"type": "constraints/iam.allowedPolicyMemberDomains", "subject": subject,
        "description": "User service-b-123@gcp-sa-logging.iam.gserviceaccount.com is not in permitted organization."});
    for violation in [described, json!({"subject": subject})] {
        let GoogleError::Refused { cause, member, .. } = answer(Call::Write, 400, &body(violation)) else {
            panic!("not a refusal")
        };
        assert_eq!(cause, RefusalCause::DomainRestricted);
        assert_eq!(member.as_deref(), Some("user:service-b-123@gcp-sa-logging.iam.gserviceaccount.com"));
    }
}

#[test]
fn a_domain_restriction_names_all_principals_of_its_details() {
    let violation = |name: &str| json!({"description": format!("User {name} is not in permitted organization.")});
    let violations: Vec<Value> = ["a@x.example", "b@x.example", "c@y.example"].into_iter().map(violation).collect();
    let body = json!({"error": {"code": 400, "status": "FAILED_PRECONDITION",
        "message": "One or more users named in the policy do not belong to a permitted customer.",
        "details": [{"@type": "type.googleapis.com/google.rpc.PreconditionFailure", "violations": violations}]}});
    let GoogleError::Refused { member, others, .. } = answer(Call::Write, 400, &body.to_string()) else {
        panic!("not a refusal")
    };
    assert_eq!(member.as_deref(), Some("user:a@x.example"));
    assert_eq!(others, ["user:b@x.example", "user:c@y.example"]);
}

#[test]
fn a_denial_names_the_permission_from_the_text_or_the_details() {
    let text = "Permission 'run.jobs.getIamPolicy' denied on resource 'x' (or resource may not exist).";
    let detailed = json!({"error": {"code": 403, "status": "PERMISSION_DENIED", "message": "no",
        "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "IAM_PERMISSION_DENIED",
                     "metadata": {"permission": "iam.serviceAccounts.getAccessToken"}}]}})
    .to_string();
    let odd = envelope(403, "PERMISSION_DENIED", "Permission '<script>' denied on resource 'x'");
    for (body, expected) in [
        (envelope(403, "PERMISSION_DENIED", text), Some("run.jobs.getIamPolicy")),
        (detailed, Some("iam.serviceAccounts.getAccessToken")),
        (odd, None),
        (envelope(403, "PERMISSION_DENIED", "The caller does not have permission"), None),
    ] {
        let GoogleError::Denied { permission, .. } = answer(Call::Read, 403, &body) else { panic!("not a denial") };
        assert_eq!(permission.as_deref(), expected, "{body}");
    }
}

fn wait(headers: &[(HeaderName, &'static str)], body: &str) -> Option<Duration> {
    let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
    classify(Call::Write, StatusCode::TOO_MANY_REQUESTS, &headers, body.as_bytes()).retry_after()
}

#[test]
fn a_throttle_waits_as_long_as_header_or_details_ask_within_bounds() {
    let details = json!({"error": {"status": "RESOURCE_EXHAUSTED", "details": [
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3.5s"}]}})
    .to_string();
    let seconds = Duration::from_secs;
    assert_eq!(wait(&[], ""), None);
    assert_eq!(wait(&[(RETRY_AFTER, "7")], ""), Some(seconds(7)));
    assert_eq!(wait(&[], &details), Some(Duration::from_millis(3500)));
    assert_eq!(wait(&[(RETRY_AFTER, "1")], &details), Some(seconds(1)));
    assert_eq!(wait(&[(RETRY_AFTER, "99999999999")], ""), Some(RETRY_AFTER_MAX));
    for nonsense in ["-1", "soon", "", "1.5"] {
        assert_eq!(wait(&[(RETRY_AFTER, nonsense)], ""), None, "{nonsense}");
    }
}

#[test]
fn a_throttle_with_a_date_waits_until_then_by_the_servers_own_clock() {
    let at = (RETRY_AFTER, "Wed, 21 Oct 2026 07:28:30 GMT");
    assert_eq!(wait(&[at.clone(), (DATE, "Wed, 21 Oct 2026 07:28:00 GMT")], ""), Some(Duration::from_secs(30)));
    assert_eq!(wait(&[at.clone(), (DATE, "Wed, 21 Oct 2026 07:29:00 GMT")], ""), None);
    assert_eq!(wait(&[at], ""), None);
}

#[test]
fn a_text_of_google_is_kept_without_control_characters_and_bounded() {
    let long = format!("a\u{1b}[31m\nb{}", "ü".repeat(5000));
    let GoogleError::Refused { message, .. } = answer(Call::Write, 400, &envelope(400, "INVALID_ARGUMENT", &long))
    else {
        panic!("not a refusal")
    };
    assert!(message.starts_with("a [31m b") && message.ends_with('…'), "{message}");
    assert_eq!(message.chars().count(), MESSAGE_MAX + 1);
}

proptest::proptest! {
    #[test]
    fn no_answer_makes_it_panic_and_only_writes_are_unknown(
        code in 100_u16..=999, body: Vec<u8>, header in "\\PC{0,40}"
    ) {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_str(&header) {
            headers.insert(RETRY_AFTER, value);
        }
        let status = StatusCode::from_u16(code).unwrap();
        let read = classify(Call::Read, status, &headers, &body);
        proptest::prop_assert_ne!(read.class(), ErrorClass::Unknown);
        let write = classify(Call::Write, status, &headers, &body);
        // A write that certainly did nothing is never reported as a failure on Google's side.
        proptest::prop_assert_ne!(write.reason().word(), "GoogleUnavailable");
    }
}
