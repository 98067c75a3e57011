//! Reconcilers with well-known mistakes: each is found, and its corrected twin passes.
//!
//! The patterns are those of Sieve (OSDI 2022): acting on intermediate states, on stale ones, and on ones that were to be
//! seen and were not; and those that everybody makes.

mod machine;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{StreamExt, future::BoxFuture};
use k8s_openapi::api::core::v1::ConfigMap;
use kube_core::params::{DeleteParams, Patch, PatchParams, PostParams};
use orchestrator_core::{
    client::{Api, Resource, WatchEvent, WatchRequest},
    controller::{Action, Context, Controller, Reconciler},
    object::ObjectKey,
    status::{ApiError, ApiResult},
};
use orchestrator_sim::explore::{
    Counterexample, Explorer, Failure, Fault, Objects, Process, explore, explore_reconciler, generate,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NAMESPACE: &str = "default";

/// One run, as a function.
type Run = fn(ObjectKey, Context) -> BoxFuture<'static, ApiResult<()>>;

/// A reconciler of config maps.
struct Maps(Run);

#[async_trait]
impl Reconciler for Maps {
    type Object = ConfigMap;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> ApiResult<Action> {
        // Children are told from parents by their names.
        if !key.name.contains('-') && key.namespace == NAMESPACE {
            (self.0)(key.clone(), context.clone()).await?;
        }
        Ok(Action::Done)
    }
}

fn maps(context: &Context) -> Api<ConfigMap> {
    Api::namespaced(context.client(), NAMESPACE)
}

fn map(name: &str, data: Value) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name, "namespace": NAMESPACE}, "data": data})).unwrap()
}

async fn make(api: &Api<ConfigMap>, name: &str, data: Value) -> ApiResult<()> {
    match api.create(&PostParams::default(), &map(name, data)).await {
        Err(error) if !error.is_already_exists() => Err(error),
        _ => Ok(()),
    }
}

async fn remove(api: &Api<ConfigMap>, name: &str) -> ApiResult<()> {
    match api.delete(name, &DeleteParams::default()).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

fn there(objects: &Objects, name: &str) -> bool {
    objects.get::<ConfigMap>(NAMESPACE, name).is_some()
}

fn of(run: Run) -> Explorer {
    explore_reconciler(move || Maps(run)).seeds(60)
}

/// What is found.
fn found(explorer: &Explorer) -> Box<Counterexample> {
    match explorer.run() {
        Err(Failure::Broken(counterexample)) => {
            let again = explorer.replay(counterexample.seed, &counterexample.plan.to_string());
            assert!(matches!(again, Err(Failure::Broken(_))), "it can be repeated: {counterexample}");
            counterexample
        }
        other => panic!("nothing was found: {other:?}"),
    }
}

fn passes(explorer: &Explorer) {
    if let Err(failure) = explorer.run() {
        panic!("{failure}");
    }
}

/// Two children belong together. Who finds the first takes the second for granted.
fn both_children(run: Run) -> Explorer {
    of(run).creates(&map("a", json!({}))).eventually("both children are there", |objects| {
        !there(objects, "a") || there(objects, "a-first") && there(objects, "a-second")
    })
}

#[test]
fn intermediate_states_are_taken_for_final_ones() {
    let wrong = both_children(|_, context| {
        Box::pin(async move {
            let api = maps(&context);
            if api.get_opt("a-first").await?.is_none() {
                make(&api, "a-first", json!({})).await?;
                make(&api, "a-second", json!({})).await?;
            }
            Ok(())
        })
    });
    let counterexample = found(&wrong);
    assert_eq!(counterexample.plan.to_string(), "crash-after-write=1");
    assert_eq!(counterexample.actions.len(), 1);
    assert!(counterexample.to_string().contains("create configmaps default/a-first"), "{counterexample}");

    passes(&both_children(|_, context| {
        Box::pin(async move {
            let api = maps(&context);
            for name in ["a-first", "a-second"] {
                make(&api, name, json!({})).await?;
            }
            Ok(())
        })
    }));
}

/// A child whose name is drawn, if there is none yet.
fn one_child(run: Run) -> Explorer {
    of(run).creates(&map("a", json!({}))).never("there are two children", |objects| {
        objects
            .list::<ConfigMap>()
            .iter()
            .filter(|map| map.metadata.name.as_deref().is_some_and(|name| name.starts_with("a-")))
            .count()
            > 1
    })
}

#[test]
fn what_is_drawn_anew_is_made_twice() {
    let wrong = one_child(|_, context| {
        Box::pin(async move {
            let all = context.caches().cache::<ConfigMap>();
            if all.keys().iter().any(|key| key.name.starts_with("a-")) {
                return Ok(());
            }
            let child = json!({"metadata": {"generateName": "a-", "namespace": NAMESPACE}});
            let child: ConfigMap = serde_json::from_value(child).unwrap();
            maps(&context).create(&PostParams::default(), &child).await.map(drop)
        })
    });
    let counterexample = found(&wrong);
    assert_eq!(counterexample.property, "there are two children");
    assert!(counterexample.plan.faults.len() <= 2, "{counterexample}");

    passes(&one_child(|_, context| Box::pin(async move { make(&maps(&context), "a-child", json!({})).await })));
}

/// The child goes with its parent, and what people wrote into it stays as long as the parent is there.
fn child_goes_with_parent(run: Run) -> Explorer {
    let begin = move |process: Process| {
        let caches = process.caches();
        async move {
            let controller =
                Controller::new("explored", &caches).reconciles::<ConfigMap>().watches::<ConfigMap>(|change| {
                    let is_child = change.key.name == "a-child";
                    if is_child { vec![ObjectKey::new(NAMESPACE, "a")] } else { Vec::new() }
                });
            controller.run(Maps(run), CancellationToken::new()).await;
        }
    };
    explore(begin)
        .seeds(60)
        .creates(&map("a", json!({})))
        .settles()
        .deletes::<ConfigMap>(NAMESPACE, "a")
        .settles()
        .creates(&map("a", json!({})))
        .settles()
        .patches::<ConfigMap>(NAMESPACE, "a-child", json!({"data": {"precious": "yes"}}))
        .eventually("what was written is kept", |objects| {
            let child = objects.get::<ConfigMap>(NAMESPACE, "a-child");
            !there(objects, "a")
                || child.is_some_and(|child| child.data.is_some_and(|data| data.contains_key("precious")))
        })
}

#[test]
fn stale_states_are_taken_for_new_ones() {
    let wrong = child_goes_with_parent(|key, context| {
        Box::pin(async move {
            let api = maps(&context);
            match context.caches().cache::<ConfigMap>().get(&key) {
                Some(_) => make(&api, "a-child", json!({})).await,
                None => remove(&api, "a-child").await,
            }
        })
    });
    let counterexample = found(&wrong);
    assert!(counterexample.plan.to_string().contains("back-in-time"), "{counterexample}");

    passes(&child_goes_with_parent(|key, context| {
        Box::pin(async move {
            let api = maps(&context);
            // Before something is destroyed, the server itself is asked.
            match api.get_opt(&key.name).await? {
                Some(_) => make(&api, "a-child", json!({})).await,
                None => remove(&api, "a-child").await,
            }
        })
    }));
}

/// For each phase that the parent has been in there is a record.
fn every_phase(run: Run) -> Explorer {
    let phase = |number: u32| json!({"data": {"phase": number.to_string()}});
    of(run)
        .creates(&map("a", json!({"phase": "1"})))
        .settles()
        .patches::<ConfigMap>(NAMESPACE, "a", phase(2))
        .patches::<ConfigMap>(NAMESPACE, "a", phase(3))
        .eventually("each phase has a record", |objects| (1..=3).all(|phase| there(objects, &format!("a-{phase}"))))
}

async fn phase(key: &ObjectKey, context: &Context) -> Option<u32> {
    let map = context.caches().cache::<ConfigMap>().get(key)?;
    map.data.as_ref()?.get("phase")?.parse().ok()
}

#[test]
fn states_that_were_to_be_seen_are_not() {
    let wrong = every_phase(|key, context| {
        Box::pin(async move {
            let Some(phase) = phase(&key, &context).await else { return Ok(()) };
            make(&maps(&context), &format!("a-{phase}"), json!({})).await
        })
    });
    assert_eq!(found(&wrong).property, "each phase has a record");

    passes(&every_phase(|key, context| {
        Box::pin(async move {
            let last = phase(&key, &context).await.unwrap_or_default();
            for phase in 1..=last {
                make(&maps(&context), &format!("a-{phase}"), json!({})).await?;
            }
            Ok(())
        })
    }));
}

fn counted(run: Run) -> Explorer {
    of(run).seeds(5).creates(&map("a", json!({"runs": "0"})))
}

#[test]
fn a_loop_wakes_itself() {
    let wrong = counted(|key, context| {
        Box::pin(async move {
            let Some(map) = context.caches().cache::<ConfigMap>().get(&key) else { return Ok(()) };
            let runs: u64 = map.data.as_ref().and_then(|data| data["runs"].parse().ok()).unwrap_or_default();
            let patch = Patch::Merge(json!({"data": {"runs": (runs + 1).to_string()}}));
            maps(&context).patch("a", &PatchParams::default(), &patch).await.map(drop)
        })
    });
    let counterexample = found(&wrong);
    assert!(counterexample.property.starts_with("it settles within"), "{}", counterexample.property);
    assert!(counterexample.plan.faults.is_empty());

    passes(&counted(|_, context| {
        Box::pin(async move {
            let patch = Patch::Merge(json!({"data": {"runs": "1"}}));
            maps(&context).patch("a", &PatchParams::default(), &patch).await.map(drop)
        })
    }));
}

/// What was made for a parent is gone once the parent is.
fn nothing_is_left(run: Run) -> Explorer {
    of(run)
        .creates(&map("a", json!({})))
        .settles()
        .deletes::<ConfigMap>(NAMESPACE, "a")
        .eventually("nothing is left", |objects| there(objects, "a") || !there(objects, "a-child"))
        .leads_to(
            "what is to go is gone within ten minutes",
            |objects| {
                let parent = objects.get::<ConfigMap>(NAMESPACE, "a");
                parent.is_some_and(|parent| parent.metadata.deletion_timestamp.is_some())
            },
            |objects| !there(objects, "a"),
            Duration::from_secs(600),
        )
}

async fn with_finalizer(
    key: ObjectKey,
    context: Context,
    end: impl AsyncFnOnce(&Api<ConfigMap>, Patch<Value>) -> ApiResult<()>,
) -> ApiResult<()> {
    let api = maps(&context);
    let Some(map) = api.get_opt(&key.name).await? else { return Ok(()) };
    let holds = map.metadata.finalizers.as_ref().is_some_and(|finalizers| !finalizers.is_empty());
    let finalizers = |list: Value| Patch::Merge(json!({"metadata": {"finalizers": list}}));
    if map.metadata.deletion_timestamp.is_some() {
        return if holds { end(&api, finalizers(Value::Null)).await } else { Ok(()) };
    }
    if !holds {
        api.patch("a", &PatchParams::default(), &finalizers(json!(["example.com/child"]))).await?;
    }
    make(&api, "a-child", json!({})).await
}

#[test]
fn a_finalizer_goes_too_early() {
    let wrong = nothing_is_left(|key, context| {
        Box::pin(with_finalizer(key, context, async |api, released| {
            api.patch("a", &PatchParams::default(), &released).await?;
            remove(api, "a-child").await
        }))
    });
    let counterexample = found(&wrong);
    assert_eq!(counterexample.property, "nothing is left");
    assert_eq!(counterexample.plan.faults.len(), 1, "{counterexample}");

    passes(&nothing_is_left(|key, context| {
        Box::pin(with_finalizer(key, context, async |api, released| {
            remove(api, "a-child").await?;
            api.patch("a", &PatchParams::default(), &released).await.map(drop)
        }))
    }));
}

#[test]
fn runs_end_as_the_one_without_faults() {
    // What is there from the start is not looked at again: whoever dies in between leaves half of the work.
    let of_this_life = |process: Process| {
        let api: Api<ConfigMap> = Api::namespaced(process.client(), NAMESPACE);
        let done: Arc<str> = "done".into();
        async move {
            if api.get_opt("a-begun").await.ok().flatten().is_some() {
                return;
            }
            let _ = make(&api, "a-begun", json!({})).await;
            let _ = make(&api, &format!("a-{done}"), json!({})).await;
        }
    };
    let counterexample = found(&explore(of_this_life).seeds(10).ends_the_same());
    assert!(counterexample.property.starts_with("it ends as without faults"), "{}", counterexample.property);
}

#[test]
fn a_plan_is_a_history() {
    let explorer =
        both_children(|_, context| Box::pin(async move { make(&maps(&context), "a-first", json!({})).await }));
    let text = |seed| match explorer.replay(seed, "late=1,busy=2") {
        Err(Failure::Broken(counterexample)) => counterexample.timeline,
        other => panic!("{other:?}"),
    };
    assert_eq!(text(3), text(3));
    assert!(matches!(explorer.replay(3, "nonsense"), Err(Failure::Plan(_))));
}

/// How often the parent was seen to change is written down by its child.
fn counted_once(run: fn(Process) -> BoxFuture<'static, ()>) -> Explorer {
    explore(run).seeds(30).creates(&map("a", json!({}))).never("one change is counted as two", |objects| {
        objects
            .get::<ConfigMap>(NAMESPACE, "a-count")
            .is_some_and(|map| map.data.is_some_and(|data| data["seen"] != "1"))
    })
}

/// Does something for each event of the parent, until the watch ends, and then again.
async fn for_each_event(process: Process, act: impl AsyncFn(&Api<ConfigMap>, u64) -> ApiResult<()>) {
    let api: Api<ConfigMap> = Api::namespaced(process.client(), NAMESPACE);
    loop {
        let resource = Resource::new("", "v1", "configmaps");
        let mut count = 0;
        if let Ok(mut events) = process.client().watch(WatchRequest::new(resource, None)).await {
            while let Some(Ok(event)) = events.next().await {
                let WatchEvent::Added(object) = event else { continue };
                if object.metadata().is_ok_and(|metadata| metadata.name.as_deref() == Some("a")) {
                    count += 1;
                    let _ = act(&api, count).await;
                }
            }
        }
        process.env().sleep(Duration::from_secs(1)).await;
    }
}

async fn set(api: &Api<ConfigMap>, name: &str, data: Value) -> ApiResult<()> {
    make(api, name, data.clone()).await?;
    api.patch(name, &PatchParams::default(), &Patch::Merge(json!({"data": data}))).await.map(drop)
}

#[test]
fn events_are_counted() {
    let wrong = counted_once(|process| {
        Box::pin(for_each_event(process, async |api, count| {
            set(api, "a-count", json!({"seen": count.to_string()})).await
        }))
    });
    assert!(found(&wrong).plan.to_string().starts_with("twice="));

    passes(&counted_once(|process| {
        Box::pin(for_each_event(process, async |api, _| set(api, "a-count", json!({"seen": "1"})).await))
    }));
}

fn greeted(run: Run) -> Explorer {
    of(run)
        .creates(&map("a", json!({})))
        .eventually("the child is there", |objects| !there(objects, "a") || there(objects, "a-child"))
}

#[test]
fn errors_are_swallowed() {
    let wrong = greeted(|_, context| {
        Box::pin(async move {
            let _ = make(&maps(&context), "a-child", json!({})).await;
            Ok(())
        })
    });
    assert_eq!(found(&wrong).plan.faults.len(), 1);

    passes(&greeted(|_, context| Box::pin(async move { make(&maps(&context), "a-child", json!({})).await })));
}

/// A parent that goes and comes again under its name is another one.
fn of_this_parent(run: Run) -> Explorer {
    of(run)
        .creates(&map("a", json!({})))
        .settles()
        .deletes::<ConfigMap>(NAMESPACE, "a")
        .creates(&map("a", json!({})))
        .eventually("the child is that of this parent", |objects| {
            let uid = |name: &str| objects.get::<ConfigMap>(NAMESPACE, name).and_then(|map| map.metadata.uid);
            let child = objects.get::<ConfigMap>(NAMESPACE, "a-child");
            let parent = child.and_then(|child| child.data).map(|data| data["parent"].clone());
            !there(objects, "a") || parent == uid("a")
        })
}

#[test]
fn names_are_taken_for_identities() {
    let wrong = of_this_parent(|key, context| {
        Box::pin(async move {
            let Some(parent) = maps(&context).get_opt(&key.name).await? else { return Ok(()) };
            make(&maps(&context), "a-child", json!({"parent": parent.metadata.uid})).await
        })
    });
    assert_eq!(found(&wrong).property, "the child is that of this parent");

    passes(&of_this_parent(|key, context| {
        Box::pin(async move {
            let Some(parent) = maps(&context).get_opt(&key.name).await? else { return Ok(()) };
            set(&maps(&context), "a-child", json!({"parent": parent.metadata.uid})).await
        })
    }));
}

/// What people write is kept beside what the reconciler writes.
fn both_write(run: Run) -> Explorer {
    of(run)
        .creates(&map("a", json!({})))
        .patches::<ConfigMap>(NAMESPACE, "a", json!({"data": {"people": "yes"}}))
        .eventually("what people wrote is kept", |objects| {
            let data = objects.get::<ConfigMap>(NAMESPACE, "a").and_then(|map| map.data);
            data.is_none_or(|data| data.contains_key("people"))
        })
}

#[test]
fn objects_are_written_over() {
    let wrong = both_write(|key, context| {
        Box::pin(async move {
            let Some(cached) = context.caches().cache::<ConfigMap>().get(&key) else { return Ok(()) };
            let mut changed = ConfigMap::clone(&cached);
            if changed.data.get_or_insert_default().insert("own".to_owned(), "yes".to_owned()).is_some() {
                return Ok(());
            }
            // Whatever there is now.
            changed.metadata.resource_version = None;
            maps(&context).replace("a", &PostParams::default(), &changed).await.map(drop)
        })
    });
    assert_eq!(found(&wrong).property, "what people wrote is kept");

    passes(&both_write(|_, context| {
        Box::pin(async move {
            let patch = Patch::Merge(json!({"data": {"own": "yes"}}));
            match maps(&context).patch("a", &PatchParams::default(), &patch).await {
                Err(error) if !error.is_not_found() => Err(error),
                _ => Ok(()),
            }
        })
    }));
}

/// A parent that says it is ready has its child.
fn truthful(run: Run) -> Explorer {
    of(run).creates(&map("a", json!({}))).always("what is ready has its child", |objects| {
        let data = objects.get::<ConfigMap>(NAMESPACE, "a").and_then(|map| map.data).unwrap_or_default();
        !data.contains_key("ready") || there(objects, "a-child")
    })
}

#[test]
fn the_status_is_ahead_of_the_truth() {
    let wrong = truthful(|_, context| {
        Box::pin(async move {
            let api = maps(&context);
            api.patch("a", &PatchParams::default(), &Patch::Merge(json!({"data": {"ready": "yes"}}))).await?;
            make(&api, "a-child", json!({})).await
        })
    });
    let counterexample = found(&wrong);
    assert!(counterexample.plan.faults.is_empty(), "{counterexample}");

    passes(&truthful(|_, context| {
        Box::pin(async move {
            let api = maps(&context);
            make(&api, "a-child", json!({})).await?;
            api.patch("a", &PatchParams::default(), &Patch::Merge(json!({"data": {"ready": "yes"}}))).await.map(drop)
        })
    }));
}

/// A cause has its effect within a minute, also while there is trouble.
fn prompt(run: Run) -> Explorer {
    // Who stands still for a minute comes too late.
    let on_time = of(run).faults(|fault| !matches!(fault, Fault::StandStill(_)));
    on_time.creates(&map("a", json!({}))).leads_to(
        "a child comes within a minute",
        |objects| there(objects, "a"),
        |objects| there(objects, "a-child"),
        Duration::from_secs(60),
    )
}

#[test]
fn effects_come_too_late() {
    let wrong = prompt(|_, context| {
        Box::pin(async move {
            context.env().sleep(Duration::from_secs(90)).await;
            make(&maps(&context), "a-child", json!({})).await
        })
    });
    assert_eq!(found(&wrong).property, "a child comes within a minute");

    passes(&prompt(|_, context| Box::pin(async move { make(&maps(&context), "a-child", json!({})).await })));
}

/// One write for each object, and no more.
fn thrifty(run: Run) -> Explorer {
    of(run).creates(&map("a", json!({}))).creates(&map("b", json!({}))).writes_at_most(1)
}

#[test]
fn too_much_is_written() {
    let wrong = thrifty(|key, context| {
        Box::pin(async move {
            let map = context.caches().cache::<ConfigMap>().get(&key);
            let is_new = map.is_some_and(|map| map.metadata.annotations.is_none());
            for step in ["1", "2"].into_iter().filter(|_| is_new) {
                let patch = Patch::Merge(json!({"metadata": {"annotations": {"step": step}}}));
                maps(&context).patch(&key.name, &PatchParams::default(), &patch).await?;
            }
            Ok(())
        })
    });
    let counterexample = found(&wrong);
    assert!(counterexample.property.contains("at most 1 times for each thing"), "{counterexample}");
    assert_eq!(counterexample.actions.len(), 1, "{counterexample}");
    let ran = counterexample.timeline.iter().any(|line| line.contains("because configmaps default/"));
    assert!(ran, "it tells why the reconciler ran: {counterexample}");
}

/// Copies a size into a child. Without one it takes a thousand.
fn sized(right: bool) -> Explorer {
    let run = move |key: ObjectKey, context: Context| async move {
        let Some(map) = context.caches().cache::<ConfigMap>().get(&key) else { return Ok(()) };
        let size = map.data.as_ref().and_then(|data| data.get("size")).cloned();
        let size = size.or_else(|| (!right).then(|| "1000".to_owned()));
        let patch = Patch::Merge(json!({"data": {"copied": size}}));
        if map.data.as_ref().and_then(|data| data.get("copied")) != size.as_ref() {
            maps(&context).patch(&key.name, &PatchParams::default(), &patch).await?;
        }
        Ok::<_, ApiError>(())
    };
    let make = move || Copies(Arc::new(move |key, context| Box::pin(run(key, context))));
    let example = map("a", json!({"size": "3", "one": "x", "two": "y"}));
    explore_reconciler(make).creates_any(generate::like(&example)).seeds(60).eventually(
        "a size is copied, and nothing else",
        |objects| {
            let data = objects.get::<ConfigMap>(NAMESPACE, "a").and_then(|map| map.data).unwrap_or_default();
            data.get("size") == data.get("copied")
        },
    )
}

/// One run, as a closure.
struct Copies(Arc<dyn Fn(ObjectKey, Context) -> BoxFuture<'static, ApiResult<()>> + Send + Sync>);

#[async_trait]
impl Reconciler for Copies {
    type Object = ConfigMap;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> ApiResult<Action> {
        if key.namespace == NAMESPACE {
            (self.0)(key.clone(), context.clone()).await?;
        }
        Ok(Action::Done)
    }
}

#[test]
fn drawn_objects_show_what_an_example_does_not() {
    let counterexample = found(&sized(false));
    let drawn: Value = serde_json::from_str(&counterexample.drawn[0]).unwrap();
    assert!(drawn["data"].get("size").is_none(), "{counterexample}");
    assert_eq!((&drawn["data"]["one"], &drawn["data"]["two"]), (&json!("x"), &json!("y")), "nothing else is changed");
    passes(&sized(true));
}

#[test]
fn time_is_a_budget() {
    let heard = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let explored = |seeds| {
        let heard = heard.clone();
        sized(true).seeds(seeds).tells(move |progress| {
            heard.store(progress.runs, std::sync::atomic::Ordering::Relaxed);
        })
    };
    let none = explored(1_000_000).for_at_most(Duration::ZERO).run().unwrap();
    assert_eq!((none.runs, none.seeds), (1, 0));
    let few = explored(3).for_at_most(Duration::from_secs(3600)).run().unwrap();
    assert_eq!((few.seeds, few.runs), (3, heard.load(std::sync::atomic::Ordering::Relaxed)));
}
