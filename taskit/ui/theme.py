"""The theme, light and dark, by Gradio's variables; style.css has the classes of TaskIT's HTML."""

from pathlib import Path

from gradio.themes import Base, colors, sizes

STYLE = Path(__file__).with_name("style.css")


def make_theme() -> Base:
    """Teal on quiet greys, system fonts (no request to a font server), the same shapes in light and dark."""
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    base = Base(
        primary_hue=colors.teal,
        neutral_hue=colors.slate,
        radius_size=sizes.radius_md,
        font=fonts,
        font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "monospace"],
    )
    names = {
        "body_background_fill": "var(--page)",
        "body_text_color": "var(--ink)",
        "body_text_color_subdued": "var(--muted)",
        "block_background_fill": "var(--card)",
        "block_border_color": "var(--line)",
        "border_color_primary": "var(--line)",
        "background_fill_primary": "var(--card)",
        "background_fill_secondary": "var(--soft)",
        "block_label_text_color": "var(--ink)",
        "block_title_text_color": "var(--ink)",
        "block_info_text_color": "var(--muted)",
        "input_background_fill": "var(--soft)",
        "input_border_color": "var(--line)",
        "slider_color": "var(--accent)",
        "color_accent_soft": "var(--accent-soft)",
        "button_primary_background_fill": "var(--accent)",
        "button_primary_background_fill_hover": "var(--accent)",
        "button_primary_text_color": "var(--on-accent)",
        "button_secondary_background_fill": "var(--card)",
        "button_secondary_background_fill_hover": "var(--soft)",
        "button_secondary_text_color": "var(--ink)",
        "button_secondary_border_color": "var(--line)",
        "link_text_color": "var(--accent)",
    }
    both = {f"{name}{mode}": value for name, value in names.items() for mode in ("", "_dark")}
    return base.set(**both, color_accent="var(--accent)", block_label_background_fill="transparent")
