//! Every bound of this crate.

use std::time::Duration;

/// Size of a request body, in bytes; upstream's limit.
pub(crate) const BODY_BYTES: usize = 3 << 20;

/// Time for the body of a request to come; upstream's time for a whole request.
pub(crate) const BODY_TIME: Duration = Duration::from_secs(60);

/// Of a body that is too large so much is read on and thrown away, so that the client gets to its answer.
pub(crate) const DRAINED_BYTES: usize = 16 << 20;
/// For how long at most.
pub(crate) const DRAIN_TIME: Duration = Duration::from_secs(2);

/// Levels of nesting that a JSON patch or a body in protobuf may make; what is nested deeper cannot be read again.
pub(crate) const OBJECT_DEPTH: usize = 126;

/// Values in one body, those inside of others included: what takes two or three bytes there takes hundreds in a tree.
pub(crate) const OBJECT_VALUES: usize = 250_000;

/// Operations of one JSON patch; upstream's limit.
pub(crate) const PATCH_OPERATIONS: usize = 10_000;

/// How often a write without a `resourceVersion` is tried anew when others write the same object.
pub(crate) const UPDATE_ATTEMPTS: usize = 64;

/// How often an address, a port or a generated name is drawn anew when it is taken.
pub(crate) const ALLOCATION_ATTEMPTS: usize = 8;

/// How often an address or a port is drawn without a look at which of them are taken.
pub(crate) const BLIND_ATTEMPTS: usize = 3;

/// Objects of one page when a whole collection is walked.
pub(crate) const WALK_PAGE_OBJECTS: usize = 500;

/// Pause before the store is followed anew, after it could not be followed.
pub(crate) const FOLLOW_AGAIN: Duration = Duration::from_millis(100);

/// Time until what a server made for itself is there again after it was deleted; upstream's, of its service.
pub(crate) const OWN_AGAIN: Duration = Duration::from_secs(10);

/// For how long a server that says nothing more is taken for alive; upstream's.
pub(crate) const SERVER_LIFE: Duration = Duration::from_secs(15);

/// How often a server says that it lives; upstream's.
pub(crate) const ANNOUNCE_AGAIN: Duration = Duration::from_secs(10);

/// Objects that went last of which selectors still know what they look at.
pub(crate) const GONE_OBJECTS: usize = 64;

/// Size of what is told about broken rules; whatever is found beyond that is not.
pub(crate) const ERROR_BYTES: usize = 64 << 10;

/// Letters of all warnings of an answer; upstream's limit. Where they are more, each is cut.
pub(crate) const WARNING_LETTERS: usize = 4096;

/// Letters of a warning that is cut; upstream's limit.
pub(crate) const CUT_WARNING_LETTERS: usize = 256;

/// Ports, and files of volumes, of a pod that are compared with each other for warnings; of more nothing is told.
pub(crate) const COMPARED: usize = 512;

/// Unknown or repeated fields that are named in one answer.
pub(crate) const STRICT_ERRORS: usize = 64;

/// How often the default service account of a young namespace is looked for, and how long between.
pub(crate) const SERVICE_ACCOUNT_ATTEMPTS: usize = 20;

/// See [`SERVICE_ACCOUNT_ATTEMPTS`].
pub(crate) const SERVICE_ACCOUNT_WAIT: Duration = Duration::from_millis(100);

/// Events go away after this time; upstream's default.
pub(crate) const EVENT_LIFE: Duration = Duration::from_secs(3600);

/// A watch without a timeout ends after this time, plus up to as much again.
pub(crate) const WATCH_LIFE: Duration = Duration::from_secs(1800);

/// Longest life of a service account token, in seconds.
pub(crate) const TOKEN_SECONDS_MAX: i64 = 1 << 32;

/// Shortest life of a service account token, in seconds; upstream's limit.
pub(crate) const TOKEN_SECONDS_MIN: i64 = 600;

/// Length of a generated name, suffix included; upstream's limit.
pub(crate) const GENERATED_NAME_BYTES: usize = 63;

/// Random letters at the end of a generated name.
pub(crate) const NAME_SUFFIX_LETTERS: usize = 5;

/// Time that a request waits for its turn; upstream's, a quarter of the time for a whole request.
pub(crate) const QUEUE_TIME: Duration = Duration::from_secs(15);

/// Queues of a priority level.
pub(crate) const LEVEL_QUEUES: usize = 4096;

/// Queues that one flow may wait in. Upstream refuses hands of more than 60 bits, which no larger ones are of.
pub(crate) const HAND_QUEUES: usize = 20;

/// Requests that wait in one queue.
pub(crate) const QUEUE_REQUESTS: usize = 10_000;

/// Combinations of labels of one family of metrics; what comes beyond that is not counted.
pub(crate) const METRIC_SERIES: usize = 10_000;

/// Time for the store to say how it is; upstream's.
pub(crate) const HEALTH_TIME: Duration = Duration::from_secs(2);

/// Connections served at once.
pub(crate) const CONNECTIONS: usize = 20_000;

/// Connections that wait to be taken; what Linux allows by default, as Go asks for.
pub(crate) const WAITING_CONNECTIONS: u32 = 4096;

/// Time for a TLS handshake, for the first request after it, and for the head of each request.
pub(crate) const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// Time that open connections get to end when the server stops.
pub(crate) const DRAINED_TIME: Duration = Duration::from_secs(2);

/// Size of one message of a stream, in bytes.
pub(crate) const STREAM_MESSAGE_BYTES: usize = 32 << 10;

/// How long a connection to what is behind a proxy may take; upstream's.
pub(crate) const PROXY_CONNECT_TIME: Duration = Duration::from_secs(30);

/// The longest tag of a proxied page in which links are looked for, in bytes.
pub(crate) const HTML_TAG_BYTES: usize = 64 << 10;

/// How much of a proxied page is unpacked at once, in bytes.
pub(crate) const HTML_PIECE_BYTES: usize = 4 << 10;

/// Ports of one port-forward: each has two channels, and a channel is a byte.
pub(crate) const FORWARDED_PORTS: usize = 128;

/// Requests at once on one HTTP/2 connection; upstream's default.
pub(crate) const STREAMS_PER_CONNECTION: u32 = 250;

/// A list is sent in pieces of about this size.
pub(crate) const LIST_PIECE_BYTES: usize = 64 << 10;

/// What is kept of a list in protobuf between finding out how long it is and sending it, in bytes.
pub(crate) const KEPT_ENCODINGS_BYTES: usize = 1 << 20;

/// Events of a watch that are sent in one piece.
pub(crate) const WATCH_EVENTS_AT_ONCE: usize = 128;

/// Encodings of events that are kept for those who watch, all together, in bytes.
pub(crate) const RECENT_BYTES: usize = 8 << 20;

/// Messages inside of messages of one body in protobuf.
pub(crate) const NESTING_DEPTH: usize = 64;

/// Levels of a field set; what is nested deeper than objects can be owns nothing.
pub(crate) const FIELD_SET_DEPTH: usize = 128;

/// Path elements of one field set that is read.
pub(crate) const FIELD_SET_ELEMENTS: usize = 100_000;

/// Wrong fields of an applied configuration that are named in one answer.
pub(crate) const APPLY_ERRORS: usize = 64;

/// Entries of managers that updated an object; older ones are joined into one. Upstream's limit.
pub(crate) const UPDATE_MANAGERS: usize = 10;

/// Length of the name of a field manager; upstream's limit.
pub(crate) const FIELD_MANAGER_BYTES: usize = 128;

/// Size of a SPDY frame that is no data, in bytes.
pub(crate) const SPDY_CONTROL_BYTES: usize = 16 << 10;

/// Size of the headers of a SPDY stream once they are unpacked, in bytes.
pub(crate) const SPDY_HEADER_BYTES: usize = 32 << 10;

/// Headers of a SPDY stream.
pub(crate) const SPDY_HEADERS: usize = 64;

/// Streams that are open at once on one SPDY connection. A forwarded connection takes two.
pub(crate) const SPDY_STREAMS: usize = 512;

/// What has come on one stream and was not read yet, in bytes. When there is more, nothing is read from the client.
pub(crate) const STREAM_BUFFER_BYTES: usize = 256 << 10;

/// Time for the streams of a session, or of a forwarded connection, to be opened; upstream's.
pub(crate) const STREAM_CREATION_TIME: Duration = Duration::from_secs(30);

/// A size of a terminal, as a client says it, in bytes.
pub(crate) const TERMINAL_SIZE_BYTES: usize = 1 << 10;

/// How often a client that is not read from is sent something, to see whether it is still there.
pub(crate) const PROBE_PERIOD: Duration = Duration::from_secs(10);

/// Different patterns in the schema of a custom kind.
pub(crate) const SCHEMA_PATTERNS: usize = 1000;

/// Values that are held against the schema of a custom kind for one object, each as often as the schema looks at it.
pub(crate) const SCHEMA_STEPS: usize = 5_000_000;

/// Size of a compiled pattern of a custom kind's schema, in bytes.
pub(crate) const PATTERN_BYTES: usize = 1 << 20;

/// Time between two adjustments of the seats that priority levels lend each other; upstream's.
pub(crate) const ADJUSTMENT_PERIOD: Duration = Duration::from_secs(10);
