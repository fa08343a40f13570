//! `/stats/summary`: the kubelet's Summary API.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::web::{self, Data};
use actix_web::{HttpRequest, HttpResponse};

use super::{Refusal, Routes, parameters, snapshot};
use crate::expose::summary::{Extent, summary};

/// Takes `?only_cpu_and_memory=true` as the kubelet does, which reads any other value as if it were not there.
pub(super) async fn page(request: HttpRequest, routes: Data<Routes>) -> Result<HttpResponse, Refusal> {
    let extent = match parameters(&request, "only_cpu_and_memory")?.as_slice() {
        [only] if only == "true" => Extent::CpuAndMemory,
        _ => Extent::Whole,
    };
    let snapshot = snapshot(&request, &routes).await?;
    let rates = Arc::clone(&routes.rates);
    let written = web::block(move || summary(&snapshot, extent, &rates).to_string()).await;
    let body = written.map_err(|_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the body could not be encoded"))?;
    Ok(HttpResponse::Ok().content_type("application/json").body(body))
}
