use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::*;
use crate::model::Reason;
use crate::status::Metadata;

fn now() -> Timestamp {
    "2027-01-31T12:00:00Z".parse().unwrap()
}

fn before(seconds: i64) -> Time {
    Time(now() - SignedDuration::from_secs(seconds))
}

fn condition(type_: &str, status: &str, reason: Reason, message: &str) -> Condition {
    Condition {
        last_transition_time: before(200),
        message: message.to_owned(),
        observed_generation: Some(1),
        reason: reason.word().to_owned(),
        status: status.to_owned(),
        type_: type_.to_owned(),
    }
}

fn item(namespace: Option<&str>, name: &str, spec: &Value, status: Value, conditions: &[Condition]) -> Item {
    let metadata = Metadata {
        uid: None,
        name: name.to_owned(),
        namespace: namespace.map(str::to_owned),
        generation: Some(1),
        creation_timestamp: Some(before(90_000)),
    };
    let mut status = status;
    status["conditions"] = serde_json::to_value(conditions).unwrap();
    let kind = if namespace.is_some() {
        "RoleMapping"
    } else if spec.get("project").is_some() {
        "CloudRunTarget"
    } else {
        "IdentityProvider"
    };
    let value = json!({
        "apiVersion": "rolecall.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec, "status": status,
    });
    serde_json::from_value(value).unwrap()
}

fn list() -> List {
    let ready = condition(kind::READY, "True", Reason::Converged, "14 of 14 grants acknowledged by Google");
    let accepted = condition(kind::ACCEPTED, "True", Reason::Accepted, "the object is valid");
    let denied = condition(kind::READY, "False", Reason::PermissionDenied, "run.services.setIamPolicy is missing");
    let stalled = condition(kind::STALLED, "True", Reason::PermissionDenied, "run.services.setIamPolicy is missing");
    let drifted = condition(kind::DRIFTED, "True", Reason::ForeignMembers, "2 members are kept");
    List::new(vec![
        item(
            None,
            "okta",
            &json!({"state": "Active"}),
            json!({
                "endpoint": "https://scim.corp.example/idp/okta/scim/v2", "dialect": "Okta", "users": 120, "groups": 9,
                "lastRequestTime": before(130),
            }),
            &[condition(kind::READY, "True", Reason::Accepted, "120 users and 9 groups pushed by the IdP")],
        ),
        item(
            None,
            "shop-dev",
            &json!({"project": "shop-dev"}),
            json!({
                "resources": {"services": 7, "jobs": 1, "workerPools": 0},
                "policies": {"inSync": 6, "drifted": 1, "held": 0, "failed": 0},
            }),
            std::slice::from_ref(&ready),
        ),
        item(
            Some("checkout"),
            "checkout-team",
            &json!({"mode": "Enforce"}),
            json!({
                "grants": {"summary": "14/14", "desired": 14, "acknowledged": 14, "unowned": 1},
                "held": {"people": 0}, "drift": {"missing": 0, "foreign": 2}, "lag": "1.8s",
            }),
            &[accepted.clone(), ready, drifted],
        ),
        item(
            Some("payments"),
            "ledger-readers",
            &json!({"mode": "Observe"}),
            json!({"grants": {"summary": "0/30", "desired": 30}}),
            &[accepted, denied, stalled],
        ),
    ])
}

fn shown(arguments: &[&str]) -> Result<(String, String), CliError> {
    use clap::Parser;
    let line = ["rolecall", "status"].iter().chain(arguments).copied();
    let super::super::Command::Status(args) = super::super::Cli::try_parse_from(line).unwrap().command else {
        panic!("not status");
    };
    let selection = Selection::from_args(&args)?;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut io = Io { out: &mut out, err: &mut err };
    show(list(), &selection, args.output, "http://127.0.0.1:8081", &mut io, now())?;
    let text = String::from_utf8(out).unwrap();
    let plain = [table::BAD, table::CAUTION, table::HEADER, table::RESET]
        .iter()
        .fold(text, |text, style| text.replace(style, ""));
    Ok((plain, String::from_utf8(err).unwrap()))
}

#[test]
fn everything_is_a_table_a_kind_with_names_that_can_be_handed_back() {
    insta::assert_snapshot!(shown(&[]).unwrap().0);
}

#[test]
fn one_kind_is_a_table_with_plain_names() {
    insta::assert_snapshot!(shown(&["rolemappings"]).unwrap().0);
}

#[test]
fn wide_table_has_more_columns_and_the_messages() {
    insta::assert_snapshot!(shown(&["-o", "wide"]).unwrap().0);
}

#[test]
fn one_object_comes_with_its_conditions() {
    insta::assert_snapshot!(shown(&["rmap/checkout-team"]).unwrap().0);
}

#[test]
fn yaml_of_one_object_is_that_object() {
    insta::assert_snapshot!(shown(&["idp", "okta", "-o", "yaml"]).unwrap().0);
}

#[test]
fn json_of_several_is_a_list_that_can_be_read_back() {
    let (text, _) = shown(&["-o", "json"]).unwrap();
    let back: List = serde_json::from_str(&text).unwrap();
    assert_eq!(back, list());
    let (text, _) = shown(&["rolemappings", "-n", "payments", "-o", "json"]).unwrap();
    let back: List = serde_json::from_str(&text).unwrap();
    assert_eq!(back.items.len(), 1, "one object that was not named is a list still");
}

#[test]
fn kinds_are_understood_in_every_form_that_the_definitions_have() {
    for word in [
        "RoleMapping",
        "rolemapping",
        "rolemappings",
        "rmap",
        "rolemappings.rolecall.dev",
        "rolemapping/checkout-team",
        "rolemapping/checkout/checkout-team",
    ] {
        let (text, _) = shown(&[word]).unwrap();
        assert!(text.contains("checkout-team"), "{word}: {text}");
    }
    let (text, _) = shown(&["crt"]).unwrap();
    assert!(text.contains("shop-dev") && !text.contains("okta"), "{text}");
}

#[test]
fn unknown_kind_is_a_usage_error_that_lists_the_kinds() {
    let error = shown(&["pods"]).unwrap_err();
    assert_eq!(error.exit(), Exit::Usage);
    assert!(error.to_string().contains("identityproviders, cloudruntargets, rolemappings"), "{error}");
}

#[test]
fn unknown_object_is_an_answer_and_not_a_failure() {
    for arguments in [&["rolemapping/none"][..], &["rolemapping", "checkout-team", "-n", "payments"]] {
        let error = shown(arguments).unwrap_err();
        assert_eq!(error.exit(), Exit::No, "{error}");
    }
    let (out, err) = shown(&["rolemappings", "-n", "nobody"]).unwrap();
    assert_eq!((out.as_str(), err.as_str()), ("", "no resources found\n"));
}

#[test]
fn rows_are_painted_by_what_they_say() {
    let status = list().items;
    let tones: Vec<Tone> = status.iter().map(|item| tone(&item.status)).collect();
    assert_eq!(tones, [Tone::Plain, Tone::Plain, Tone::Caution, Tone::Bad]);
}
