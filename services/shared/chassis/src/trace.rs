//! W3C trace context: how one tree of spans comes out of many processes.

use opentelemetry::{
    Context,
    propagation::{Extractor, Injector, TextMapPropagator as _},
    trace::TraceContextExt as _,
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The name of the header.
const TRACEPARENT: &str = "traceparent";

/// The trace context of the current span as `traceparent`, to be stored beside work that goes on elsewhere; empty if
/// there is none.
pub fn traceparent() -> String {
    let mut one = One(String::new());
    TraceContextPropagator::new().inject_context(&tracing::Span::current().context(), &mut one);
    one.0
}

/// Makes `span` a child of the span that `traceparent` names. A text that is no trace context changes nothing.
pub fn follow(span: &tracing::Span, traceparent: &str) {
    adopt(span, TraceContextPropagator::new().extract(&One(traceparent.to_owned())));
}

/// The trace id of the current span; empty if there is none.
pub fn trace_id() -> String {
    let context = tracing::Span::current().context();
    let span = context.span();
    let span = span.span_context();
    if span.is_valid() { span.trace_id().to_string() } else { String::new() }
}

/// Makes `span` a child of the span in the headers.
pub(crate) fn follow_headers(span: &tracing::Span, headers: &http::HeaderMap) {
    adopt(span, TraceContextPropagator::new().extract(&opentelemetry_http::HeaderExtractor(headers)));
}

/// Writes the context of `span` into the headers.
pub(crate) fn inject(span: &tracing::Span, headers: &mut http::HeaderMap) {
    TraceContextPropagator::new()
        .inject_context(&span.context(), &mut opentelemetry_http::HeaderInjector(headers));
}

fn adopt(span: &tracing::Span, parent: Context) {
    if parent.span().span_context().is_valid() {
        // Fails where no telemetry is set up or the span began already; then it has no parent, which hurts nobody.
        let _ = span.set_parent(parent);
    }
}

/// A carrier of one header.
struct One(String);

impl Injector for One {
    fn set(&mut self, key: &str, value: String) {
        if key == TRACEPARENT {
            self.0 = value;
        }
    }
}

impl Extractor for One {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT).then_some(self.0.as_str())
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider as _;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn a_trace_goes_on_elsewhere() {
        assert_eq!(traceparent(), "");
        let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
            let span = tracing::info_span!("work");
            follow(&span, parent);
            let _entered = span.enter();
            assert_eq!(trace_id(), "0af7651916cd43dd8448eb211c80319c");
            assert!(traceparent().starts_with("00-0af7651916cd43dd8448eb211c80319c-"), "{}", traceparent());
            assert_ne!(traceparent(), parent);
            follow(&tracing::info_span!("other"), "nonsense");
        });
    }
}
