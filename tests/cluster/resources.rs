//! The custom resources as the API server sees them. No operator runs.
use crate::support::*;

#[tokio::test]
async fn the_definitions_are_accepted_and_served() {
    let cluster = ControlPlane::shared().await;
    cluster.crds_established().await;
}
