//! The Deployment and its pod.

use super::*;

#[test]
fn the_pod_keeps_to_the_restricted_security_standard() {
    let objects = render(json!({}));
    assert_eq!(
        pod_of(&objects)["securityContext"],
        json!({
            "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
            "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": { "type": "RuntimeDefault" },
        })
    );
    assert_eq!(
        container(&objects)["securityContext"],
        json!({
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] },
        })
    );
    for volume in pod_of(&objects)["volumes"].as_array().unwrap() {
        assert!(volume.get("persistentVolumeClaim").or(volume.get("emptyDir")).is_some(), "{volume}");
    }
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        assert!(pod_of(&objects).get(field).is_none(), "{field}");
    }
    assert_eq!(pod_of(&objects)["containers"].as_array().unwrap().len(), 1);
}

#[test]
fn the_old_pod_ends_before_the_new_one_starts() {
    let objects = render(json!({}));
    let deployment = one(&objects, "Deployment");
    assert_eq!(deployment["spec"]["replicas"], 1);
    assert_eq!(deployment["spec"]["strategy"], json!({ "type": "Recreate" }));
    assert_eq!(pod_of(&objects)["terminationGracePeriodSeconds"], 60);
}

#[test]
fn the_probes_ask_a_port_of_their_own() {
    let objects = render(json!({ "ports": { "scim": 18080, "admin": 18081, "probe": 18082 } }));
    for (probe, path) in [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
        assert_eq!(container(&objects)[probe]["httpGet"], json!({ "path": path, "port": "probe" }), "{probe}");
    }
    let ports: Vec<_> = container(&objects)["ports"].as_array().unwrap().iter().collect();
    assert_eq!(ports[0]["containerPort"], 18080);
    assert_eq!(ports[1], &json!({ "name": "admin", "containerPort": 18081, "protocol": "TCP" }));
    assert_eq!(ports[2], &json!({ "name": "probe", "containerPort": 18082, "protocol": "TCP" }));
    assert!(args(&objects).windows(2).any(|pair| pair == ["--probe-listen", "0.0.0.0:18082"]));
    assert!(args(&objects).windows(2).any(|pair| pair == ["--listen", "0.0.0.0:18080"]));
    assert!(args(&objects).windows(2).any(|pair| pair == ["--admin-listen", "0.0.0.0:18081"]));
}

#[test]
fn the_pods_are_spread_by_their_own_labels() {
    let objects = render(json!({}));
    let labels = &one(&objects, "Deployment")["spec"]["selector"]["matchLabels"];
    let spread = pod_of(&objects)["topologySpreadConstraints"].as_array().unwrap();
    assert_eq!(spread.len(), 2);
    for constraint in spread {
        assert_eq!(&constraint["labelSelector"]["matchLabels"], labels);
        assert_eq!(constraint["whenUnsatisfiable"], "ScheduleAnyway");
    }
    let own = json!([{ "maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": { "matchLabels": { "a": "b" } } }]);
    let objects = render(json!({ "topologySpreadConstraints": own.clone() }));
    assert_eq!(pod_of(&objects)["topologySpreadConstraints"], own);
}

#[test]
fn the_placement_of_the_pod_can_be_set() {
    let wanted = json!({
        "nodeSelector": { "pool": "system" },
        "tolerations": [{ "key": "system", "operator": "Exists" }],
        "affinity": { "podAntiAffinity": {} },
        "priorityClassName": "system-cluster-critical",
        "imagePullSecrets": [{ "name": "registry" }],
    });
    let plain = render(json!({}));
    for field in wanted.as_object().unwrap().keys() {
        assert!(pod_of(&plain).get(field).is_none(), "{field}");
    }
    let objects = render(wanted.clone());
    for (field, value) in wanted.as_object().unwrap() {
        assert_eq!(&pod_of(&objects)[field], value, "{field}");
    }
}

#[test]
fn the_image_has_the_version_of_the_program_unless_another_is_set() {
    let version = env!("CARGO_PKG_VERSION");
    let image = |values| container(&render(values))["image"].clone();
    assert_eq!(image(json!({})), format!("ghcr.io/rolecall/rolecall:{version}"));
    assert_eq!(image(json!({ "image": { "tag": "main" } })), "ghcr.io/rolecall/rolecall:main");
    let digest = format!("sha256:{}", "ab".repeat(32));
    let by_digest = image(json!({ "image": { "tag": "main", "digest": digest.clone() } }));
    assert_eq!(by_digest, format!("ghcr.io/rolecall/rolecall@{digest}"));
    let chart: Value = serde_saphyr::from_str(&read("charts/rolecall/Chart.yaml")).unwrap();
    assert_eq!((&chart["version"], &chart["appVersion"]), (&json!(version), &json!(version)));
}

/// The long flags that `rolecall run` documents.
fn documented_flags() -> BTreeSet<String> {
    let page = read("docs/reference/flags.md");
    let section = page.split("\n## ").find(|section| section.starts_with("rolecall run\n")).unwrap();
    let table = section.split("```").next().unwrap();
    table
        .lines()
        .filter_map(|line| line.strip_prefix("| `--"))
        .map(|line| format!("--{}", line.split([' ', '`']).next().unwrap()))
        .collect()
}

#[test]
fn every_flag_of_run_has_a_value_of_the_chart_and_no_other_flag_is_given() {
    let objects = render(everything());
    let args = args(&objects);
    assert_eq!(args[0], "run");
    let mut given: BTreeSet<String> = args[1..].chunks(2).map(|pair| pair[0].to_owned()).collect();
    assert!(args[1..].chunks(2).all(|pair| pair.len() == 2 && !pair[1].starts_with("--")), "{args:?}");
    let environment = container(&objects)["env"].as_array().unwrap();
    let pod_name = environment.iter().find(|entry| entry["name"] == "ROLECALL_POD_NAME").unwrap();
    assert_eq!(pod_name["valueFrom"], json!({ "fieldRef": { "fieldPath": "metadata.name" } }));
    given.insert("--pod-name".to_owned());
    let mut documented = documented_flags();
    assert!(documented.remove("--manifests"), "the way without a cluster");
    assert_eq!(given, documented);
}

#[test]
fn scim_schemas_are_a_file_of_the_pod_and_a_change_restarts_it() {
    let objects = render(json!({ "scimSchemas": scim_schemas() }));
    let map = one(&objects, "ConfigMap");
    let file: Value = serde_json::from_str(map["data"]["schemas.json"].as_str().unwrap()).unwrap();
    assert_eq!(file, scim_schemas());
    let pod = pod_of(&objects);
    let volume = json!({ "name": "schemas", "configMap": { "name": map["metadata"]["name"] } });
    assert!(pod["volumes"].as_array().unwrap().contains(&volume));
    let mount = json!({ "name": "schemas", "mountPath": "/etc/rolecall", "readOnly": true });
    assert!(container(&objects)["volumeMounts"].as_array().unwrap().contains(&mount));
    let args = args(&objects);
    assert!(args.windows(2).any(|pair| pair == ["--scim-schemas", "/etc/rolecall/schemas.json"]), "{args:?}");
    let sum = |objects: &[Value]| {
        let template = &one(objects, "Deployment")["spec"]["template"];
        template["metadata"]["annotations"]["rolecall.dev/scim-schemas"].clone()
    };
    assert!(sum(&objects).is_string() && sum(&render(json!({}))).is_null());
    assert_ne!(sum(&objects), sum(&render(json!({ "scimSchemas": [scim_schemas()[0]] }))));
}

#[test]
fn values_become_flags() {
    let objects = render(json!({
        "mode": "enforce", "externalUrl": "https://rolecall.example.com", "driftInterval": "1h",
        "finalizerDeadline": "30m", "log": { "format": "text", "level": "rolecall=debug,info" },
        "google": { "endpoint": "http://emulator.test:9090", "credentials": "none" },
        "database": { "sqlite": { "path": "/data/x/y.db" } }, "listenAddress": "[::]",
        "maxConnections": 2000, "maxConnectionsPerPeer": 1500, "requestsPerSecond": 100, "allowPrivateIssuers": true,
        "maxRowsPerProvider": 5_000_000, "maxBytesPerProvider": 9_000_000_000_u64, "maxCapture": "30m",
    }));
    assert_eq!(
        args(&objects),
        [
            "run",
            "--listen",
            "[::]:8080",
            "--admin-listen",
            "[::]:8081",
            "--probe-listen",
            "[::]:8082",
            "--max-connections",
            "2000",
            "--max-connections-per-peer",
            "1500",
            "--requests-per-second",
            "100",
            "--allow-private-issuers",
            "true",
            "--max-rows-per-provider",
            "5000000",
            "--max-bytes-per-provider",
            "9000000000",
            "--max-capture",
            "30m",
            "--database",
            "sqlite:/data/x/y.db",
            "--mode",
            "enforce",
            "--namespace",
            "rolecall-system",
            "--external-url",
            "https://rolecall.example.com",
            "--google-endpoint",
            "http://emulator.test:9090",
            "--google-credentials",
            "none",
            "--drift-interval",
            "1h",
            "--guard-removals-per-hour",
            "25",
            "--guard-leavers-per-hour",
            "100",
            "--finalizer-deadline",
            "30m",
            "--log-format",
            "text",
            "--log-level",
            "rolecall=debug,info",
        ]
    );
    let mount =
        container(&objects)["volumeMounts"].as_array().unwrap().iter().find(|mount| mount["name"] == "database");
    assert_eq!(mount.unwrap()["mountPath"], "/data/x");
    let plain = render(json!({}));
    let unsaid: Vec<_> =
        args(&plain).into_iter().filter(|arg| ["--external-url", "--google-endpoint"].contains(arg)).collect();
    assert!(unsaid.is_empty(), "{unsaid:?}");
}

#[test]
fn more_environment_volumes_and_mounts_are_added_to_what_is_there() {
    let values = json!({
        "extraEnv": [{ "name": "HTTPS_PROXY", "value": "http://proxy:3128" }],
        "extraVolumes": [{ "name": "google", "configMap": { "name": "google" } }],
        "extraVolumeMounts": [{ "name": "google", "mountPath": "/google", "readOnly": true }],
    });
    let (plain, more) = (render(json!({})), render(values.clone()));
    for (at, value) in [
        ("/containers/0/env", "extraEnv"),
        ("/volumes", "extraVolumes"),
        ("/containers/0/volumeMounts", "extraVolumeMounts"),
    ] {
        let mut expected = pod_of(&plain).pointer(at).unwrap().as_array().unwrap().clone();
        expected.extend(values[value].as_array().unwrap().iter().cloned());
        assert_eq!(pod_of(&more).pointer(at).unwrap(), &json!(expected), "{at}");
    }
}

#[test]
fn the_image_and_the_pod_agree() {
    let image = read("Dockerfile");
    let objects = render(json!({}));
    let (user, group) =
        (&pod_of(&objects)["securityContext"]["runAsUser"], &pod_of(&objects)["securityContext"]["runAsGroup"]);
    assert!(image.contains(&format!("\nUSER {user}:{group}\n")));
    assert!(image.contains(&format!("\nENTRYPOINT {}\n", container(&objects)["command"])));
    assert!(image.contains("\nEXPOSE 8080 8081 8082\n"));
    let (_, last) = image.rsplit_once("\nFROM ").unwrap();
    assert!(last.starts_with("scratch\n"), "nothing but what is copied");
    assert!(last.contains("/etc/ssl/certs/ca-certificates.crt"), "TLS trusts what the system trusts");
    let toolchain = read("rust-toolchain.toml");
    let channel = toolchain.split_once("channel = \"").unwrap().1.split('"').next().unwrap();
    assert!(
        image.contains(&format!("FROM rust:{channel}-")) && image.contains(&format!("RUSTUP_TOOLCHAIN={channel}\n"))
    );
}
