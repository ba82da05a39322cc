//! Optional features.

use super::*;

#[test]
fn every_option_is_off_unless_it_is_turned_on() {
    let kinds = |objects: &[Value]| -> BTreeMap<String, usize> {
        let mut kinds = BTreeMap::new();
        for object in objects {
            *kinds.entry(object["kind"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        kinds
    };
    let mut expected: BTreeMap<String, usize> = [
        ("ClusterRole", 3),
        ("ClusterRoleBinding", 1),
        ("CustomResourceDefinition", 3),
        ("Deployment", 1),
        ("PersistentVolumeClaim", 1),
        ("Role", 1),
        ("RoleBinding", 1),
        ("Service", 2),
        ("ServiceAccount", 1),
    ]
    .map(|(kind, n)| (kind.to_owned(), n))
    .into();
    assert_eq!(kinds(&render(json!({}))), expected);
    for kind in ["ConfigMap", "HTTPRoute", "Ingress", "NetworkPolicy", "PrometheusRule", "ServiceMonitor"] {
        expected.insert(kind.to_owned(), 1);
    }
    assert_eq!(kinds(&render(everything())), expected);
}

#[test]
fn every_object_carries_the_labels_of_the_release_and_what_is_namespaced_its_namespace() {
    let mut values = everything();
    values["commonLabels"] = json!({ "team": "platform" });
    for object in render(values) {
        let kind = object["kind"].as_str().unwrap();
        if kind == "CustomResourceDefinition" {
            continue; // they outlive the release
        }
        let labels = &object["metadata"]["labels"];
        assert_eq!(labels["app.kubernetes.io/instance"], "rolecall", "{kind}");
        assert_eq!(labels["team"], "platform", "{kind}");
        let namespace = &object["metadata"]["namespace"];
        assert_eq!(namespace.is_string(), !kind.starts_with("ClusterRole"), "{kind}");
    }
}

#[test]
fn names_leave_space_for_derived_names() {
    for object in render(json!({ "fullnameOverride": "a".repeat(45), "crds": { "install": false } })) {
        let name = object["metadata"]["name"].as_str().unwrap();
        assert!(name.len() <= 63, "{}: {name}", object["kind"]);
    }
}

#[test]
fn the_admin_port_has_a_service_of_its_own() {
    let objects =
        render(json!({ "service": { "type": "LoadBalancer", "loadBalancerSourceRanges": ["192.0.2.0/24"] } }));
    let scim = named(&objects, "Service", "rolecall");
    assert_eq!(scim["spec"]["type"], "LoadBalancer");
    assert_eq!(scim["spec"]["loadBalancerSourceRanges"], json!(["192.0.2.0/24"]));
    let targets = |service: &Value| -> Vec<Value> {
        service["spec"]["ports"].as_array().unwrap().iter().map(|port| port["targetPort"].clone()).collect()
    };
    assert_eq!(targets(scim), ["scim"]);
    let admin = named(&objects, "Service", "rolecall-admin");
    assert_eq!(targets(admin), ["admin"]);
    assert_eq!(admin["spec"]["type"], "ClusterIP");
    let labels = one(&objects, "Deployment")["spec"]["template"]["metadata"]["labels"].as_object().unwrap();
    for service in [scim, admin] {
        for (label, value) in service["spec"]["selector"].as_object().unwrap() {
            assert_eq!(labels.get(label), Some(value));
        }
    }
}

#[test]
fn ingress_and_route_lead_to_scim_and_nowhere_else() {
    let objects = render(everything());
    let ingress = &one(&objects, "Ingress")["spec"];
    assert_eq!(ingress["ingressClassName"], "nginx");
    assert_eq!(ingress["tls"][0]["secretName"], "rolecall-tls");
    let backend = json!({ "service": { "name": "rolecall", "port": { "name": "scim" } } });
    assert_eq!(
        ingress["rules"],
        json!([{ "host": "rolecall.example.com",
            "http": { "paths": [{ "path": "/idp/", "pathType": "Prefix", "backend": backend }] } }])
    );
    let route = &one(&objects, "HTTPRoute")["spec"];
    assert_eq!(route["parentRefs"], json!([{ "name": "public", "namespace": "gateways" }]));
    assert_eq!(route["hostnames"], json!(["rolecall.example.com"]));
    assert_eq!(
        route["rules"],
        json!([{ "matches": [{ "path": { "type": "PathPrefix", "value": "/idp/" } }],
            "backendRefs": [{ "name": "rolecall", "port": 80 }] }])
    );
}

#[test]
fn the_network_policy_lets_nobody_to_the_admin_port_unless_named() {
    let objects = render(json!({ "networkPolicy": { "enabled": true } }));
    let policy = &one(&objects, "NetworkPolicy")["spec"];
    assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(policy["ingress"], json!([{ "ports": [{ "port": "scim", "protocol": "TCP" }] }]));
    let ports: BTreeSet<i64> = policy["egress"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|rule| rule.get("to").is_none())
        .flat_map(|rule| rule["ports"].as_array().unwrap())
        .map(|port| port["port"].as_i64().unwrap())
        .collect();
    assert_eq!(ports, [53, 443, 6443].into());
    let metadata = |policy: &Value| policy["egress"].to_string().contains("169.254.169.254/32");
    assert!(metadata(policy));

    let peer = json!([{ "namespaceSelector": { "matchLabels": { "name": "monitoring" } } }]);
    let values = json!({ "networkPolicy": { "enabled": true, "scim": { "from": peer.clone() }, "admin": { "from": peer.clone() },
        "egress": { "metadataServer": false, "extra": [{ "ports": [{ "port": 3128 }] }] } } });
    let objects = render(values);
    let policy = &one(&objects, "NetworkPolicy")["spec"];
    for (rule, port) in policy["ingress"].as_array().unwrap().iter().zip(["scim", "admin"]) {
        assert_eq!(rule, &json!({ "ports": [{ "port": port, "protocol": "TCP" }], "from": peer.clone() }));
    }
    assert!(!metadata(policy));
    assert_eq!(policy["egress"].as_array().unwrap().last().unwrap(), &json!({ "ports": [{ "port": 3128 }] }));
}
