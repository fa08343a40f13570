//! `/`: what else there is.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse};

use super::{TEXT, header_text};
use crate::expose::negotiate;

/// Every path, and what is there.
const PATHS: [(&str, &str); 11] = [
    ("/metrics", "everything enabled, as Prometheus text or OpenMetrics"),
    ("/metrics?sandbox=ID", "one pod sandbox, by id or a unique prefix of 12 characters"),
    ("/metrics/cadvisor", "only the kubelet's families"),
    ("/metrics/resource", "what metrics-server reads of a kubelet: CPU and memory for kubectl top and autoscalers"),
    ("/metrics/kata", "the Kata shims' own metrics, as kata-monitor serves them; ?sandbox=ID, ?filter_family=PREFIX"),
    ("/stats/summary", "the node, its pods and containers as the kubelet's Summary API; ?only_cpu_and_memory=true"),
    ("/sandboxes", "pod sandboxes as JSON, a table for browsers, or one id per line for text/plain"),
    ("/processes", "the processes that use most memory and CPU time, with pod and container; ?top=N"),
    ("/livez", "alive"),
    ("/readyz", "ready; ?verbose lists the checks"),
    ("/healthz", "the same as /readyz"),
];

/// HTML for browsers, text for everybody else.
pub(super) async fn page(request: HttpRequest) -> HttpResponse {
    let title = concat!("kata-pulse ", env!("CARGO_PKG_VERSION"));
    if negotiate::wants(header_text(&request, &header::ACCEPT), "text/html") {
        let items: String = PATHS
            .iter()
            .map(|(path, what)| format!("<li><a href=\"{path}\"><code>{path}</code></a> {what}</li>"))
            .collect();
        return HttpResponse::Ok().content_type("text/html; charset=utf-8").body(format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title><style>\
             body{{font-family:sans-serif;margin:2em}}</style></head><body><h1>{title}</h1>\
             <p>Every pod on this node, measured where the truth is.</p><ul>{items}</ul></body></html>\n"
        ));
    }
    let lines: String = PATHS.iter().map(|(path, what)| format!("{path}  {what}\n")).collect();
    HttpResponse::Ok().content_type(TEXT).body(format!("{title}\n{lines}"))
}
