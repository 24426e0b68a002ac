"""The registry: versions that are registered once, and one champion whoever promotes at once."""

import multiprocessing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts

from services.errors import ArtifactError, RegistryError
from services.mlflow_store import open_client, tracking_uri
from services.registry import Registry, open_registry
from services.store.ledger import Promotion, Promotions, SqlLedger, champions
from services.store.opening import open_engine_to_write
from services.types import CheckpointRef
from services.versions import LINE, model_of

# MLflow's tables still use a loader that SQLAlchemy 2.1 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")

ANN = {"who": "ann", "why": "better on level 6"}


@pytest.fixture(autouse=True)
def _no_server(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """One state folder for all tests here: MLflow takes seconds to make its tables."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        folder = tmp_path_factory.mktemp("state") / "r1"
        open_client(folder)
    return folder


def sql_ledger(home):
    engine = open_engine_to_write(f"sqlite:///{home / 'store.db'}")
    Promotions.__table__.create(engine, checkfirst=True)
    return SqlLedger(engine)


@pytest.fixture(scope="module")
def registry(home):
    return open_registry(home, sql_ledger(home))


@pytest.fixture
def client(home):
    return MlflowClient(tracking_uri=tracking_uri(home))


def checkpoint(folder, name="a", stage="zero", parents=()):
    """A folder that looks like one; loading a real one is a test of its own."""
    path = folder / f"{stage}-{name}"
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(name.encode())
    return CheckpointRef(stage, str(path), digest=name * 64, parents=parents)


def register(registry, model, ref, **tags):
    return registry.register(
        ref,
        model=model,
        pipeline="tiny-s0-0123",
        recipe_digest="f" * 64,
        mlflow_run_id="0" * 32,
        tags=tags,
    )


def line_of(registry, tmp_path, model, count=3):
    """A model with some versions."""
    return [register(registry, model, checkpoint(tmp_path, name)) for name in "abcdef"[:count]]


def aliases(client, model):
    return {
        alias: int(version) for alias, version in client.get_registered_model(model).aliases.items()
    }


def test_names_of_registered_models():
    assert {model_of(stage, "bundled:tiny-student") for stage in ("base", "zero", "r1")} == {LINE}
    assert model_of("distill", "bundled:tiny-student") == "r1-distill-tiny-student"
    assert model_of("student-rl", "HuggingFaceTB/SmolLM2-135M") == "r1-distill-SmolLM2-135M"
    assert model_of("distill", "/models/small/") == "r1-distill-small"


def test_a_checkpoint_is_registered_once_with_its_lineage(registry, tmp_path):
    ref = checkpoint(tmp_path, parents=("p" * 64, "q" * 64))
    first = register(registry, "once", ref, evaluation="1")
    assert register(registry, "once", ref, evaluation="2") == first == 1
    assert register(registry, "once", checkpoint(tmp_path, "b")) == 2
    newest, oldest = registry.versions("once")
    assert (newest.number, oldest.number) == (2, 1)
    assert oldest.tags == {
        "stage": "zero",
        "digest": "a" * 64,
        "parents": f"{'p' * 64},{'q' * 64}",
        "pipeline": "tiny-s0-0123",
        "recipe_digest": "f" * 64,
        "evaluation": "2",
    }
    assert (oldest.stage, oldest.digest) == ("zero", "a" * 64)


def test_the_same_weights_of_another_stage_are_another_version(registry, tmp_path):
    assert register(registry, "stages", checkpoint(tmp_path, stage="base")) == 1
    assert register(registry, "stages", checkpoint(tmp_path, stage="zero")) == 2


def test_versions_are_listed_over_pages_newest_first(registry, tmp_path, monkeypatch):
    monkeypatch.setattr("services.versions._PAGE", 2)
    numbers = line_of(registry, tmp_path, "pages", 5)
    assert [row.number for row in registry.versions("pages")] == numbers[::-1]
    assert [row.number for row in registry.versions("pages", 3)] == [5, 4, 3]
    assert "pages" in registry.models()


def test_a_pin_says_who_and_why_until_it_is_taken_away(registry, tmp_path):
    (one,) = line_of(registry, tmp_path, "pins", 1)
    with pytest.raises(RegistryError, match="who and why"):
        registry.pin("pins", one, who="ann", why="")
    registry.pin("pins", one, **ANN)
    pin = registry.version("pins", one).pin
    assert (pin["who"], pin["why"]) == ("ann", "better on level 6")
    registry.unpin("pins", one)
    assert registry.version("pins", one).pin is None
    with pytest.raises(RegistryError, match="not pinned"):
        registry.unpin("pins", one)


def test_evaluations_of_a_version_add_up(registry, tmp_path):
    (one,) = line_of(registry, tmp_path, "measured", 1)
    for number in (7, 3, 7):
        registry.add_evaluation("measured", one, number)
    assert registry.version("measured", one).evaluation_ids == (3, 7)


def test_a_version_whose_files_are_gone_does_not_become_champion(registry, tmp_path):
    one, two = line_of(registry, tmp_path, "files", 2)
    registry.promote("files", one, **ANN)
    registry.promote("files", two, **ANN)
    (tmp_path / "zero-a").rename(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match="is gone"):
        registry.rollback("files", who="bob", why="slow")
    with pytest.raises(ArtifactError, match="is gone"):
        registry.promote("files", one, **ANN)
    assert registry.head("files").champion == two


def test_a_change_is_announced_once_the_alias_follows_it(home, registry, client, tmp_path):
    one, two = line_of(registry, tmp_path, "told", 2)
    heard = []

    def hear(entry):
        heard.append((entry.action, entry.champion, aliases(client, "told")["champion"]))

    told = Registry(client, sql_ledger(home), home, hear)
    told.promote("told", one, **ANN)
    told.promote("told", one, **ANN)
    told.promote("told", two, **ANN)
    told.rollback("told", **ANN)
    assert heard == [("promote", one, one), ("promote", two, two), ("rollback", one, one)]


@pytest.mark.parametrize("name", ["training_args.bin", "optimizer.pt", "state/rng.pkl"])
def test_pickles_are_refused_and_nothing_is_registered(registry, tmp_path, name):
    ref = checkpoint(tmp_path)
    (Path(ref.path) / name).parent.mkdir(exist_ok=True)
    (Path(ref.path) / name).write_bytes(b"")
    with pytest.raises(RegistryError, match="pickle"):
        register(registry, "pickled", ref)
    assert registry.versions("pickled") == []


def test_a_folder_without_safetensors_is_refused(registry, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RegistryError, match="safetensors"):
        register(registry, "empty", CheckpointRef("zero", str(tmp_path), "a" * 64))


def test_promotion_and_rollback_move_the_aliases_and_keep_who_and_why(registry, client, tmp_path):
    one, two, three = line_of(registry, tmp_path, "moves")
    registry.nominate("moves", one)
    assert aliases(client, "moves") == {"candidate": one}
    registry.promote("moves", one, **ANN)
    assert aliases(client, "moves") == {"champion": one}
    registry.promote("moves", two, **ANN)
    registry.promote("moves", three, **ANN)
    assert aliases(client, "moves") == {"champion": three, "previous": two}
    registry.rollback("moves", who="bob", why="slow")
    assert aliases(client, "moves") == {"champion": two, "previous": one}
    last = registry.rollback("moves", who="bob", why="slow still")
    assert aliases(client, "moves") == {"champion": one}
    with pytest.raises(RegistryError, match="no champion to go back to"):
        registry.rollback("moves", who="bob", why="again")
    story = [(entry.sequence, entry.action, entry.champion) for entry in registry.history("moves")]
    assert story == [
        (1, "promote", one),
        (2, "promote", two),
        (3, "promote", three),
        (4, "rollback", two),
        (5, "rollback", one),
    ]
    assert registry.head("moves") == last
    assert (last.who, last.why, last.previous) == ("bob", "slow still", None)
    assert last.at.utcoffset().total_seconds() == 0


def test_promoting_the_champion_again_adds_nothing(registry, tmp_path):
    (one,) = line_of(registry, tmp_path, "again", 1)
    first = registry.promote("again", one, **ANN)
    assert registry.promote("again", one, who="bob", why="resumed", seen=0) == first
    assert registry.history("again") == [first]


def test_a_decision_on_an_older_champion_is_refused_and_says_who_was_faster(registry, tmp_path):
    one, two, three = line_of(registry, tmp_path, "seen")
    seen = registry.promote("seen", one, **ANN).sequence
    registry.promote("seen", two, who="bob", why="first", seen=seen)
    with pytest.raises(RegistryError, match=r"bob made it version 2 \(first\)"):
        registry.promote("seen", three, **ANN, seen=seen)
    with pytest.raises(RegistryError, match="changed meanwhile"):
        registry.promote("seen", three, **ANN, seen=0)
    assert registry.head("seen").champion == two


class LateLedger:
    """Somebody else's entry comes between the look at the head and the writing."""

    def __init__(self, ledger, rival):
        self.ledger, self.rival = ledger, rival

    def history(self, model):
        return self.ledger.history(model)

    def head(self, model):
        return self.ledger.head(model)

    def append(self, entry):
        rival, self.rival = self.rival, None
        if rival is not None:
            assert self.ledger.append(rival)
        return self.ledger.append(entry)


def test_of_two_who_saw_the_same_head_the_second_is_told(home, registry, client, tmp_path):
    one, two, three = line_of(registry, tmp_path, "late")
    head = registry.promote("late", one, **ANN)
    rival = head._replace(sequence=2, champion=two, previous=one, who="bob")
    late = Registry(client, LateLedger(sql_ledger(home), rival), home)
    with pytest.raises(RegistryError, match="bob made it version 2"):
        late.promote("late", three, **ANN)
    assert champions(registry.history("late")) == [one, two]


def test_aliases_are_repaired_from_the_ledger(home, registry, client, tmp_path):
    one, two = line_of(registry, tmp_path, "crash", 2)
    head = registry.promote("crash", one, **ANN)
    entry = head._replace(sequence=2, champion=two, previous=one)
    assert sql_ledger(home).append(entry)
    assert aliases(client, "crash") == {"champion": one}
    assert registry.resolve("models:/crash@champion").name == "zero-b"
    registry.sync("crash")
    assert aliases(client, "crash") == {"champion": two, "previous": one}


def test_who_why_and_an_existing_version_are_required(registry, tmp_path):
    (one,) = line_of(registry, tmp_path, "asked", 1)
    with pytest.raises(RegistryError, match="who and why"):
        registry.promote("asked", one, who="ann", why=" ")
    with pytest.raises(RegistryError, match="no version 7"):
        registry.promote("asked", 7, **ANN)
    with pytest.raises(RegistryError, match="no version 1"):
        registry.promote("no/such", 1, **ANN)
    assert registry.history("asked") == []


def test_resolve_finds_versions_and_aliases_in_place(registry, tmp_path):
    one, two = line_of(registry, tmp_path, "found", 2)
    registry.promote("found", one, **ANN)
    registry.nominate("found", two)
    assert registry.resolve("models:/found@champion") == tmp_path / "zero-a"
    assert registry.resolve("models:/found@candidate") == tmp_path / "zero-b"
    assert registry.resolve(f"models:/found/{two}") == tmp_path / "zero-b"


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("r1@champion", "names no model version"),
        ("models:/lost/9", "no version 9"),
        ("models:/lost@candidate", "no candidate"),
        ("models:/lost@previous", "no previous"),
        ("models:/never@champion", "no champion"),
    ],
)
def test_what_cannot_be_resolved_is_named(registry, tmp_path, uri, says):
    (one,) = line_of(registry, tmp_path, "lost", 1)
    registry.promote("lost", one, **ANN)
    with pytest.raises(RegistryError, match=says):
        registry.resolve(uri)


def test_a_version_whose_folder_is_gone_is_named(registry, tmp_path):
    ref = checkpoint(tmp_path)
    number = register(registry, "gone", ref)
    Path(ref.path).rename(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match="is gone"):
        registry.resolve(f"models:/gone/{number}")


def test_a_registered_checkpoint_loads_with_from_pretrained(registry, home, tmp_path, monkeypatch):
    # Not above: the racing processes import this file, too.
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 16, "hidden_size": 16, "intermediate_size": 16}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=1, num_attention_heads=2))
    model.save_pretrained(tmp_path / "llama")
    number = register(registry, "real", CheckpointRef("r1", str(tmp_path / "llama"), "a" * 64))
    registry.promote("real", number, **ANN)
    loaded = AutoModelForCausalLM.from_pretrained(
        registry.resolve("models:/real@champion"), use_safetensors=True
    )
    assert loaded.lm_head.weight.equal(model.lm_head.weight)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri(home))
    by_mlflow = Path(download_artifacts("models:/real@champion"))
    assert by_mlflow.samefile(tmp_path / "llama")


class Uploads:
    """MLflow's client behind a server, as far as registering goes."""

    tracking_uri = "http://127.0.0.1:5000"

    def __init__(self, client):
        self.client = client
        self.uploaded = []

    def log_artifacts(self, run_id, folder, place):
        self.uploaded.append((run_id, folder, place))

    def __getattr__(self, name):
        return getattr(self.client, name)


def test_behind_a_server_the_folder_is_uploaded_to_the_run(home, registry, client, tmp_path):
    experiment = client.create_experiment("uploads", artifact_location="mlflow-artifacts:/7")
    run_id = client.create_run(experiment).info.run_id
    remote = Uploads(client)
    ref = checkpoint(tmp_path)
    Registry(remote, sql_ledger(home), home).register(
        ref, model="remote", pipeline="p", recipe_digest="f", mlflow_run_id=run_id
    )
    assert remote.uploaded == [(run_id, ref.path, "checkpoints/zero-aaaaaaaaaaaa")]
    (version,) = registry.versions("remote")
    assert version.source == f"mlflow-artifacts:/7/{run_id}/artifacts/{remote.uploaded[0][2]}"


def promote_many(home, name, model, versions, start, results):
    """What one of two processes does: promote in turn, roll back now and then."""
    mine = open_registry(home, sql_ledger(home))
    start.wait()
    won = told = 0
    for turn in range(6):
        try:
            if turn == 4:
                mine.rollback(model, who=name, why="race")
            else:
                mine.promote(model, versions[turn % len(versions)], who=name, why="race")
            won += 1
        except RegistryError:
            told += 1
    results.put((name, won, told))


def test_two_processes_make_one_linear_history(home, registry, client, tmp_path):
    one, two, three, four = line_of(registry, tmp_path, "race", 4)
    spawn = multiprocessing.get_context("spawn")
    start, results = spawn.Barrier(2), spawn.Queue()
    sides = [("ann", [one, two]), ("bob", [three, four])]
    processes = [
        spawn.Process(target=promote_many, args=(home, name, "race", versions, start, results))
        for name, versions in sides
    ]
    for process in processes:
        process.start()
    outcomes = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    history = registry.history("race")
    assert [entry.sequence for entry in history] == list(range(1, len(history) + 1))
    assert all(won + told == 6 and won for _, won, told in outcomes)
    assert {entry.who for entry in history} == {"ann", "bob"}
    line: list[int] = []
    for entry in history:
        line = [*line, entry.champion] if entry.action == "promote" else line[:-1]
        assert line[-1] == entry.champion
        assert entry.previous == (line[-2] if len(line) > 1 else None)
    head = history[-1]
    expected = {"champion": head.champion, "previous": head.previous}
    assert aliases(client, "race") == {k: v for k, v in expected.items() if v is not None}


def test_the_ledger_gives_a_number_once(home):
    ledger = sql_ledger(home)
    noon = datetime(2026, 1, 1, 13, tzinfo=timezone(timedelta(hours=1)))
    entry = Promotion("m", 1, "promote", 4, None, "ann", "why", noon)
    assert ledger.append(entry)
    assert not ledger.append(entry._replace(who="bob"))
    assert ledger.append(entry._replace(model="other"))
    assert ledger.history("m") == [entry]
    assert ledger.head("m").at == datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert ledger.head("nobody") is None
