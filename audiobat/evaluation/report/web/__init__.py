"""What pages are made of: the shell, the style and the script of one HTML file, and curves as SVG inside it.

html.py         the shell, tables, figures, data URIs; it puts page.css and page.js into every page, and timeline.js or
                map.js into those that need it
charts.py       curves over blocks
"""
