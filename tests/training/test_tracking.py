"""What a tracker is told, and a tracker that is not there."""

from accelerate.tracking import GeneralTracker

from taskit.cli.main import main
from taskit.training.trainer import train


class Recorder(GeneralTracker):
    """Accelerate's own kind of tracker, which keeps what it is told."""

    name = "recorder"
    requires_logging_directory = False

    def __init__(self):
        super().__init__()
        self.config, self.values, self.finished = {}, [], False

    @property
    def tracker(self):
        return self

    def start(self):
        pass

    def store_init_configuration(self, values):
        self.config = values

    def log(self, values, step=None, **_):
        self.values.append((step, values))

    def finish(self):
        self.finished = True


def test_a_tracker_hears_every_loss_and_metric(run, plan, tmp_path):
    recorder = Recorder()
    result = train(plan, tmp_path / "run", tracker=recorder)
    assert recorder.finished
    assert recorder.config["learning_rate"] == plan.training.learning_rate
    steps = [(event.step, event.loss) for event in run[2] if event.kind == "step"]
    assert [(step, said["loss"]) for step, said in recorder.values if "loss" in said] == steps
    assert [step for step, said in recorder.values if "validation" in said] == [11, 22, 33]
    assert recorder.values[-1] == (result.steps, {"evaluation": result.after})


def test_a_missing_tracker_is_one_sentence(plan, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("taskit.training.tracking.find_spec", lambda _: None)
    plan.save(tmp_path / "plan.json")
    words = ["train", str(tmp_path / "plan.json"), "--out", str(tmp_path / "run"), "--track", "wandb"]
    assert main(words) == 1
    assert "pip install wandb" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
