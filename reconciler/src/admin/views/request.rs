//! Pending requests to join.

use jiff::Timestamp;

use super::named;
use crate::admin::Admin;
use crate::admin::list::Listed;
use crate::admin::query::Query;
use crate::admin::resource::{Metadata, Request, RequestStatus};
use crate::store::{JoinRequest, RequestState, StoreError};

impl Listed for Request {
    async fn all(admin: &Admin, _query: &Query, _now: Timestamp) -> Result<Vec<Self>, StoreError> {
        let requests = admin.0.store.requests().await?;
        let waits = |request: &JoinRequest| request.state == RequestState::Pending;
        Ok(requests.into_iter().filter(waits).map(view).collect())
    }
}

fn view(request: JoinRequest) -> Request {
    let fingerprint = request.key.hex();
    let metadata = Metadata {
        uid: Some(fingerprint.clone()),
        ..named(&request.device, Some(request.asked_at))
    };
    Request::new(
        metadata,
        RequestStatus {
            state: "Pending".to_owned(),
            message: request.note,
            fingerprint,
            hardware: request.hardware,
            from: request.address,
        },
    )
}
