use reqwest::Method;
use serde_json::json;

use crate::{Google, PARENT, etag_number, invokers};

const BOB: &str = "user:bob@example.com";

#[tokio::test]
async fn policy_never_set_is_exactly_the_acab_etag() {
    let google = Google::start().await;
    let service = google.service("s").await;
    assert_eq!(google.get(&service).await, json!({ "etag": "ACAB" }));
}

#[tokio::test]
async fn etags_rise_and_a_stale_one_conflicts_with_both_in_octal() {
    let google = Google::start().await;
    let service = google.service("s").await;
    let first = google.set(&service, json!({ "version": 3, "etag": "ACAB", "bindings": invokers(&[BOB]) })).await;
    assert_eq!(first["version"], 1, "a policy without conditions is version 1");
    let (code, word, text) = google.set_refused(&service, json!({ "etag": "ACAB", "bindings": [] })).await;
    assert_eq!((code, word.as_str()), (409, "ABORTED"));
    assert!(
        text.starts_with("There were concurrent policy changes. Please retry the whole read-modify-write with exponential backoff. The request's ETag '\\000 \\001' did not match the current policy's ETag '\\007\\006"),
        "{text}"
    );
    assert_eq!(google.get(&service).await, first, "a refused write changes nothing");
    let mut last = first;
    for _ in 0..50 {
        let next = google.set(&service, json!({ "etag": last["etag"], "bindings": invokers(&[BOB]) })).await;
        assert!(etag_number(&next) > etag_number(&last), "{next} after {last}");
        last = next;
    }
}

#[tokio::test]
async fn absent_etag_overwrites_also_when_the_mask_names_it() {
    let google = Google::start().await;
    let service = google.service("s").await;
    google.set(&service, json!({ "bindings": invokers(&[BOB]) })).await;
    let body = json!({ "policy": { "bindings": invokers(&["allUsers"]), "version": 3 }, "updateMask": "bindings,version,etag" });
    let after = google.ok(Method::POST, &format!("/v1/{service}:setIamPolicy"), Some(body)).await;
    assert_eq!(after["bindings"], invokers(&["allUsers"]));
    let emptied = google.set(&service, json!({})).await;
    assert!(emptied.get("bindings").is_none(), "{emptied}");
}

#[tokio::test]
async fn v1_and_v2_and_id_and_number_are_one_policy() {
    let google = Google::start().await;
    let service = google.service("s").await;
    let after = google.set(&service, json!({ "bindings": invokers(&[BOB]) })).await;
    let project = google.ok(Method::GET, "/v1/projects/demo-project", None).await;
    let number = project["projectNumber"].as_str().unwrap();
    let by_number = service.replace("demo-project", number);
    assert_eq!(google.ok(Method::GET, &format!("/v1/{by_number}:getIamPolicy"), None).await, after);
    google.ok(Method::POST, &format!("/v2/{PARENT}/workerPools?workerPoolId=w"), Some(json!({}))).await;
    let body = json!({ "policy": { "bindings": [{ "role": "roles/run.viewer", "members": [BOB] }] } });
    let set = google.ok(Method::POST, &format!("/v1/{PARENT}/workerpools/w:setIamPolicy"), Some(body)).await;
    assert_eq!(google.get(&format!("{PARENT}/workerPools/w")).await, set);
}

#[tokio::test]
async fn members_are_folded_merged_and_deduplicated() {
    let google = Google::start().await;
    let service = google.service("s").await;
    google.control(
        "POST",
        "directory",
        json!({
            "canonical": ["user:Ann.Case@example.com"], "aliases": { "bobby@example.com": "bob@example.com" },
        }),
    );
    let after = google
        .set(
            &service,
            json!({ "bindings": [
            { "role": "roles/run.invoker", "members": ["user:BOB@Example.com", "user:ann.case@example.com"] },
            { "role": "roles/run.viewer", "members": ["domain:Example.COM"] },
            { "role": "roles/run.invoker", "members": ["user:bobby@example.com", "allUsers"] },
            { "role": "roles/run.developer", "members": [] },
        ] }),
        )
        .await;
    assert_eq!(
        after["bindings"],
        json!([
            { "role": "roles/run.invoker", "members": [BOB, "user:Ann.Case@example.com", "allUsers"] },
            { "role": "roles/run.viewer", "members": ["domain:example.com"] },
        ])
    );
}

#[tokio::test]
async fn conditions_need_version_3_on_both_ways() {
    let google = Google::start().await;
    let service = google.service("s").await;
    let conditional =
        json!([{ "role": "roles/run.invoker", "members": [BOB], "condition": { "title": "t", "expression": "true" } }]);
    let (code, _, _) = google.set_refused(&service, json!({ "bindings": conditional })).await;
    assert_eq!(code, 400);
    let after = google.set(&service, json!({ "version": 3, "bindings": conditional })).await;
    assert_eq!((&after["version"], &after["bindings"]), (&json!(3), &conditional));

    let low = google.ok(Method::GET, &format!("/v2/{service}:getIamPolicy"), None).await;
    let role = low["bindings"][0]["role"].as_str().unwrap();
    assert_eq!(low["version"], 1);
    assert_eq!(role.len(), "roles/run.invoker_withcond_".len() + 20, "{role}");
    assert!(low["bindings"][0].get("condition").is_none());
    let again = google.ok(Method::GET, &format!("/v2/{service}:getIamPolicy"), None).await;
    assert_eq!(again, low, "the digits are stable");

    let (code, _, _) =
        google.set_refused(&service, json!({ "version": 1, "etag": after["etag"], "bindings": [] })).await;
    assert_eq!(code, 400, "a version 1 write with an etag must not lose conditions");
    let (code, _, _) = google.set_refused(&service, json!({ "version": 2, "bindings": [] })).await;
    assert_eq!(code, 400);
    let lost = google.set(&service, json!({ "version": 1, "bindings": invokers(&[BOB]) })).await;
    assert_eq!(lost["bindings"], invokers(&[BOB]), "without an etag they are lost");
}

#[tokio::test]
async fn conditions_are_cel_and_not_for_basic_roles_or_everybody() {
    let google = Google::start().await;
    let service = google.service("s").await;
    let set = |role: &str, member: &str, expression: &str| {
        json!({ "version": 3, "bindings": [
            { "role": role, "members": [member], "condition": { "title": "t", "expression": expression } },
        ] })
    };
    let good = "request.time < timestamp(\"2027-03-31T00:00:00Z\") && resource.name.startsWith('projects/_/x')";
    for (role, member, expression, words) in [
        ("roles/run.invoker", BOB, "request.time <", "ConditionCompileCheck"),
        ("roles/run.invoker", BOB, "now() < 3 && nobody", "ConditionCompileCheck"),
        ("roles/viewer", BOB, good, "Conditions can't be set on primitive roles."),
        ("roles/run.invoker", "allUsers", good, "Conditions can't be set for allUsers."),
    ] {
        let (code, word, text) = google.set_refused(&service, set(role, member, expression)).await;
        assert_eq!((code, word.as_str()), (400, "INVALID_ARGUMENT"), "{role} {member} {expression}");
        assert!(text.starts_with("LintValidationUnits/") && text.contains(words), "{text}");
    }
    assert_eq!(google.set(&service, set("roles/run.invoker", BOB, good)).await["version"], 3);
}

#[tokio::test]
async fn jobs_refuse_conditions_until_the_switch_is_turned() {
    let google = Google::start().await;
    google.ok(Method::POST, &format!("/v2/{PARENT}/jobs?jobId=j"), Some(json!({}))).await;
    let job = format!("{PARENT}/jobs/j");
    let policy = json!({ "version": 3, "bindings": [
        { "role": "roles/run.invoker", "members": [BOB], "condition": { "title": "t", "expression": "true" } },
    ] });
    assert_eq!(google.set_refused(&job, policy.clone()).await.0, 400);
    google.control("PATCH", "settings", json!({ "conditions": { "jobs": true } }));
    assert_eq!(google.set(&job, policy).await["version"], 3);
}

#[tokio::test]
async fn refusals_have_the_observed_texts() {
    let google = Google::start().await;
    let service = google.service("s").await;
    google.control("POST", "directory", json!({ "mode": "strict", "users": ["bob@example.com"] }));
    let cases = [
        (invokers(&["bob"]), "Policy members must be of the form \"<type>:<value>\"."),
        (invokers(&["user:gone@example.com"]), "User gone@example.com does not exist."),
        (invokers(&["group:gone@example.com"]), "Group gone@example.com does not exist."),
        (
            invokers(&["serviceAccount:x@demo.iam.gserviceaccount.com"]),
            "Service account x@demo.iam.gserviceaccount.com does not exist.",
        ),
        (
            json!([{ "role": "roles/iap.httpsResourceAccessor", "members": [BOB] }]),
            "Role roles/iap.httpsResourceAccessor is not supported for this resource.",
        ),
    ];
    for (bindings, text) in cases {
        let refusal = google.set_refused(&service, json!({ "bindings": bindings })).await;
        assert_eq!(refusal, (400, "INVALID_ARGUMENT".to_owned(), text.to_owned()));
    }
    assert_eq!(google.get(&service).await, json!({ "etag": "ACAB" }), "one bad member refuses all");
    let missing = google.refused(Method::GET, &format!("/v2/{PARENT}/services/nope:getIamPolicy"), None).await;
    assert_eq!(
        missing,
        (
            404,
            "NOT_FOUND".to_owned(),
            "Resource 'nope' of kind 'SERVICE' in region 'us-central1' in project 'demo-project' does not exist."
                .to_owned(),
        )
    );
}

#[tokio::test]
async fn limits_count_appearances() {
    let google = Google::start().await;
    let service = google.service("s").await;
    let people: Vec<String> = (0..751).map(|n| format!("user:u{n}@example.com")).collect();
    let both = |count: usize| {
        json!({ "bindings": [
        { "role": "roles/run.invoker", "members": people[..750] },
        { "role": "roles/run.viewer", "members": people[..count] },
    ] })
    };
    google.set(&service, both(750)).await;
    let (code, _, text) = google.set_refused(&service, both(751)).await;
    assert_eq!(
        (code, text.as_str()),
        (400, "The number of members in the policy (1,501) is larger than the maximum allowed size 1,500.")
    );
    let groups: Vec<String> = (0..251).map(|n| format!("group:g{n}@example.com")).collect();
    let with_groups =
        |count: usize| json!({ "bindings": [{ "role": "roles/run.invoker", "members": groups[..count] }] });
    google.set(&service, with_groups(250)).await;
    assert_eq!(google.set_refused(&service, with_groups(251)).await.0, 400);
    google.control("PATCH", "settings", json!({ "groups": 300 }));
    google.set(&service, with_groups(251)).await;
    let conditional = |count: usize| {
        json!({ "version": 3, "bindings": (0..count).map(|n| json!({
        "role": "roles/run.invoker", "members": [BOB], "condition": { "title": format!("t{n}"), "expression": "true" },
    })).collect::<Vec<_>>() })
    };
    google.set(&service, conditional(20)).await;
    assert_eq!(google.set_refused(&service, conditional(21)).await.0, 400);
    let operators = |count: usize| {
        json!({ "version": 3, "bindings": [{
        "role": "roles/run.invoker", "members": [BOB],
        "condition": { "title": "t", "expression": vec!["true"; count + 1].join(" && ") },
    }] })
    };
    google.set(&service, operators(12)).await;
    assert_eq!(google.set_refused(&service, operators(13)).await.0, 400);
}

#[tokio::test]
async fn domain_restriction_names_the_outsider_only_on_projects() {
    let google = Google::start().await;
    let service = google.service("s").await;
    google.control("POST", "directory", json!({ "allowedDomains": ["example.com"] }));
    let refusal = google.set_refused(&service, json!({ "bindings": invokers(&["user:eve@example.org"]) })).await;
    assert_eq!(refusal, (
        400,
        "FAILED_PRECONDITION".to_owned(),
        "One or more users named in the policy do not belong to a permitted customer,  perhaps due to an organization policy.".to_owned(),
    ));
    let body =
        json!({ "policy": { "bindings": [{ "role": "roles/run.viewer", "members": ["user:eve@example.org"] }] } });
    let (_, answer) = google.call(Method::POST, "/v3/projects/demo-project:setIamPolicy", Some(body)).await;
    let violation = &answer["error"]["details"][0]["violations"][0];
    assert_eq!(violation["description"], "User eve@example.org is not in permitted organization.");
    assert_eq!(violation["subject"], "orgpolicy:projects/demo-project?configvalue=eve@example.org");
    google.set(&service, json!({ "bindings": invokers(&[BOB]) })).await;
}

#[tokio::test]
async fn deleted_account_stays_in_the_policy_under_another_name_until_undeleted() {
    let google = Google::start().await;
    let service = google.service("s").await;
    google.set(&service, json!({ "bindings": invokers(&[BOB, "allUsers"]) })).await;
    google.control("POST", "directory/delete", json!({ "member": "user:Bob@example.com", "uid": 123 }));
    let deleted = google.get(&service).await;
    assert_eq!(deleted["bindings"], invokers(&["deleted:user:bob@example.com?uid=123", "allUsers"]));
    let back = google.set(&service, json!({ "etag": deleted["etag"], "bindings": deleted["bindings"] })).await;
    assert_eq!(back["bindings"], deleted["bindings"], "the tombstone can be written back");
    let (_, _, text) = google.set_refused(&service, json!({ "bindings": invokers(&[BOB]) })).await;
    assert_eq!(text, "User bob@example.com does not exist.");
    google.control("POST", "directory/undelete", json!({ "member": BOB }));
    assert_eq!(google.get(&service).await["bindings"], invokers(&[BOB, "allUsers"]));
}

#[tokio::test]
async fn projects_and_iap_have_their_own_rules() {
    let google = Google::start().await;
    let set = "/v3/projects/demo-project:setIamPolicy";
    let policy =
        |role: &str, member: &str| Some(json!({ "policy": { "bindings": [{ "role": role, "members": [member] }] } }));
    assert_eq!(google.refused(Method::POST, set, policy("roles/run.viewer", "allUsers")).await.0, 400);
    assert_eq!(google.refused(Method::POST, set, policy("roles/owner", BOB)).await.0, 400);
    let after = google.ok(Method::POST, set, policy("roles/run.viewer", BOB)).await;
    let read = google.ok(Method::POST, "/v1/projects/demo-project:getIamPolicy", Some(json!({}))).await;
    assert_eq!(read, after);

    let iap = "projects/demo-project/iap_web/cloud_run-us-central1/services/s";
    let role = "roles/iap.httpsResourceAccessor";
    let after = google.ok(Method::POST, &format!("/v1/{iap}:setIamPolicy"), policy(role, BOB)).await;
    let number = google.ok(Method::GET, "/v3/projects/demo-project", None).await["name"].as_str().unwrap().to_owned();
    let by_number = iap.replace("projects/demo-project", &number);
    let read = google.ok(Method::POST, &format!("/v1/{by_number}:getIamPolicy"), Some(json!({}))).await;
    assert_eq!(read, after);
    let mut masked = policy(role, BOB).unwrap();
    masked["updateMask"] = json!("bindings");
    let (code, _, text) = google.refused(Method::POST, &format!("/v1/{iap}:setIamPolicy"), Some(masked)).await;
    assert_eq!((code, text.contains("Unknown name \"updateMask\"")), (400, true), "{text}");
}

#[tokio::test]
async fn audit_exemptions_count_and_survive_a_write_of_bindings() {
    let google = Google::start().await;
    let set = "/v3/projects/demo-project:setIamPolicy";
    let audit = json!([{ "service": "allServices", "auditLogConfigs": [{ "logType": "DATA_READ", "exemptedMembers": [BOB] }] }]);
    let body = json!({ "policy": { "auditConfigs": audit }, "updateMask": "auditConfigs" });
    google.ok(Method::POST, set, Some(body)).await;
    google.control("PATCH", "settings", json!({ "principals": 2 }));
    let bindings = |members: &[&str]| {
        Some(json!({ "policy": { "bindings": [{ "role": "roles/run.viewer", "members": members }] } }))
    };
    let after = google.ok(Method::POST, set, bindings(&[BOB])).await;
    assert_eq!(after["auditConfigs"], audit);
    let (_, _, text) = google.refused(Method::POST, set, bindings(&[BOB, "user:ann@example.com"])).await;
    assert!(text.contains("(3)"), "{text}");
}
